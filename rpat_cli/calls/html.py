"""Tables as HTML for notebooks, which have their own fonts and themes."""

from collections.abc import Iterable
from html import escape

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from rpat_cli.runs.run_log import as_text


def as_html(parts: Iterable[RenderableType]) -> str:
    """Tables as such, remarks as a list, everything else as it is in a terminal."""
    return "\n".join(filter(None, map(_part, parts)))


def _part(part: RenderableType) -> str:
    if isinstance(part, Table):
        return _table(part)
    text = part.plain if isinstance(part, Text) else as_text(part)
    return f'<pre style="white-space: pre-wrap">{escape(text)}</pre>' if text.strip() else ""


def _table(table: Table) -> str:
    columns = table.columns
    rows = zip(*(column.cells for column in columns), strict=True)
    body = [_row(cells, [column.justify for column in columns], "td") for cells in rows]
    head = ""
    if table.show_header and columns:
        justify = [column.justify for column in columns]
        head = f"<thead>{_row([column.header for column in columns], justify, 'th')}</thead>"
    title, caption = _text(table.title), _text(table.caption)
    titled = f'<caption style="text-align: left; caption-side: top">{title}</caption>'
    below = f"<p>{caption}</p>" if caption else ""
    return f"<table>{titled if title else ''}{head}<tbody>{''.join(body)}</tbody></table>{below}"


def _row(cells: Iterable[RenderableType], justify: Iterable[str], tag: str) -> str:
    parts = [
        f'<{tag} style="text-align: {side}">{_text(cell)}</{tag}>'
        for cell, side in zip(cells, justify, strict=True)
    ]
    return f"<tr>{''.join(parts)}</tr>"


def _text(cell: RenderableType | None) -> str:
    """A cell's text, escaped; lines stay lines."""
    if cell is None:
        return ""
    plain = Text.from_markup(cell).plain if isinstance(cell, str) else as_text(cell)
    return escape(plain).replace("\n", "<br>")
