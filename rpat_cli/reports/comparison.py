"""Two evaluations compared, as a table and lines for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.evaluation.compare import Comparison
from rpat_cli.text import count, percent, percent_range, signed_percent, signed_range

MAX_LISTED = 10
"""So many changed images are listed for each attack and model unless all are asked for."""


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One line per attack: both accuracies in percent and their difference, each with its interval,
    on how many images they differ, and McNemar's p-value."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Accuracy in percent on the same {count(comparisons[0].a.n)} images",
        title_justify="left",
        caption=(
            "Below each number its 95 % interval. p: how likely such a difference is between "
            "equally good models (McNemar, exact)"
        ),
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("attack", overflow="fold")
    for name in ("A", "B", "B - A", "only A\nright", "only B\nright", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in comparisons:
        table.add_row(
            Text(each.label),
            f"{percent(each.a.value)}\n{percent_range(each.a.interval)}",
            f"{percent(each.b.value)}\n{percent_range(each.b.interval)}",
            Text(f"{signed_percent(each.difference)}\n{signed_range(each.interval)}"),
            count(len(each.only_a)),
            count(len(each.only_b)),
            f"{each.p:.2g}",
        )
    return table


def changed_images(comparisons: Sequence[Comparison], most: int | None = MAX_LISTED) -> list[str]:
    """One line per attack and model: which images (rows of the data, from 0) only it gets right,
    `most` at most."""
    lines, hidden = [], 0
    for each in comparisons:
        for name, images in (("A", each.only_a), ("B", each.only_b)):
            listed = ", ".join(map(str, images[:most])) or "none"
            more = len(images) - len(images[:most])
            if more:
                listed += f" and {count(more)} more"
            lines.append(f"{each.label}, only {name} is right: {listed}")
            hidden += more
    return [*lines, "--changed lists them all"] if hidden else lines
