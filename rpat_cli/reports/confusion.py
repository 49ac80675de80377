"""Which classes a model confuses, prepared for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rpat_cli.reports.words import class_name
from rpat_cli.text import percent

MOST_FREQUENT = 10


@dataclass(frozen=True)
class Cell:
    """`count` images of class `true` are predicted as `predicted`, a fraction `share` of the images
    of class `true`."""

    true: str
    predicted: str
    count: int
    share: float
    right: bool

    @property
    def text(self) -> str:
        """The cell in words."""
        return (
            f"{self.true} predicted as {self.predicted}: {self.count} images, "
            f"{percent(self.share, 1)} %"
        )


def heat_map(counts: Tensor, names: Sequence[str]) -> list[list[Cell]]:
    """One row for each true class of `counts` (classes, classes)."""
    labels = [class_name(names, k) for k in range(len(counts))]
    rows = []
    for k, row in enumerate(counts.tolist()):
        n = max(sum(row), 1)
        cells = []
        for j, count in enumerate(row):  # by number: two classes may have the same name
            cells.append(Cell(labels[k], labels[j], count, count / n, j == k))
        rows.append(cells)
    return rows


def frequent_confusions(
    counts: Tensor, names: Sequence[str], most: int = MOST_FREQUENT
) -> list[Cell]:
    """The most frequent confusions, the most frequent first; pairs that never occur are left
    out."""
    mistakes: list[Cell] = []
    for row in heat_map(counts, names):
        mistakes += [cell for cell in row if cell.count and not cell.right]
    return sorted(mistakes, key=lambda cell: (-cell.count, -cell.share))[:most]
