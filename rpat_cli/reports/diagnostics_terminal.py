"""What a diagnostic shows, for the terminal. Nothing in it needs color to be understood."""

from rich import box
from rich import table as rich_table
from rich.console import Group, RenderableType
from rich.text import Text as RichText

from rpat_cli.diagnostics.blocks import Block, Examples, Pictures, Section, Table, Text
from rpat_cli.text import counted


def for_terminal(section: Section) -> Group:
    """Its title, and its blocks one below the other; pictures as their table.

    All text is wrapped in rich's `Text`, since a bracket in a string would be markup.
    """
    images = counted(section.n, "image")
    detail = ", ".join(filter(None, [section.detail, images]))
    title = RichText(f"{section.title} ({detail})", style="italic")
    parts: list[RenderableType] = [title]
    for block in section.blocks:
        parts += _rendered(block)
    return Group(*parts, "")


def _rendered(block: Block) -> list[RenderableType]:
    if isinstance(block, Text):
        return [_text(block)]
    if isinstance(block, Pictures):
        return [_table(block.table)] if block.table else []
    if isinstance(block, Examples):
        return [RichText(f"  {each.title}, {each.detail}") for each in block.examples]
    return [_table(block)]


def _text(block: Text) -> RichText:
    lines = [f"  {line}" for line in block.lines] if block.title else list(block.lines)
    if block.level:
        lines[0] = f"{block.level}: {lines[0]}"
    text = "\n".join(filter(None, [block.title, *lines, block.note]))
    return RichText(text, style="bold" if block.level else "")


def _table(block: Table) -> rich_table.Table:
    table = rich_table.Table(
        box=box.SIMPLE_HEAD, caption=RichText(block.note), caption_justify="left"
    )
    # On 80 columns sentences have to wrap; in a table with numbers, the titles of the numbers do.
    # A column without a title holds levels.
    sentences = not any(column.numeric for column in block.columns)
    for column in block.columns:
        table.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=not column.title if sentences else not column.numeric,
        )
    for row in block.rows:
        cells = [row.level or row.cells[0], *row.cells[1:]]
        if row.note and row.strong:
            cells[-1] += f"\n[{row.note}]"
        table.add_row(*map(RichText, cells), style="bold" if row.strong else "")
    return table
