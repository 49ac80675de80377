"""Which classes a model takes for which others, prepared for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rpat_cli.reports.scores import percent
from rpat_cli.reports.words import class_name

MOST_FREQUENT = 10


@dataclass(frozen=True)
class Cell:
    """`count` images of class `true` that are taken for `predicted`; `share` is of the images of
    class `true`."""

    true: str
    predicted: str
    count: int
    share: float
    right: bool

    @property
    def text(self) -> str:
        """The cell in words."""
        return (
            f"{self.true} taken for {self.predicted}: {self.count} images, "
            f"{percent(self.share, 1)} %"
        )


def heat_map(counts: Tensor, names: Sequence[str]) -> list[list[Cell]]:
    """One row for each true class of `counts` (classes, classes)."""
    labels = [class_name(names, k) for k in range(len(counts))]
    return [
        [
            Cell(true, labels[j], count, count / max(sum(row), 1), j == k)
            for j, count in enumerate(row)
        ]
        for k, (true, row) in enumerate(zip(labels, counts.tolist(), strict=True))
    ]


def frequent_confusions(
    counts: Tensor, names: Sequence[str], most: int = MOST_FREQUENT
) -> list[Cell]:
    """The pairs of classes with the most mistakes, the most frequent first; pairs without any are
    left out."""
    mistakes = [
        cell for row in heat_map(counts, names) for cell in row if cell.count and not cell.right
    ]
    return sorted(mistakes, key=lambda cell: (-cell.count, -cell.share))[:most]
