"""Where a result would stand on RobustBench (Croce et al., NeurIPS 2021, arXiv 2010.09670).

`leaderboard.tsv` holds the entries of its leaderboards for Linf and L2 as they are in its
repository, github.com/RobustBench/robustbench, in March 2025: facts, not files of theirs.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rpat_cli.records.regular import read_regular
from rpat_cli.text import DASH, parse_number, percent, percent_range, show_number

SOURCE = "RobustBench, github.com/RobustBench/robustbench"
DATE = "2025-03"

NO_EXTRA, ALL = "none", "any"
"""Which entries count: those without additional data, or all. RobustBench counts images that were
generated from the training set alone as no additional data."""

SAME_EPS = 0.02
"""Relative: entries of 0.031 are on the board of 8/255."""


@dataclass(frozen=True)
class Entry:
    """One line of a leaderboard; accuracies are fractions. `robust_acc` is what it sorts by: that
    under AutoAttack, or under a stronger evaluation where one is known."""

    dataset: str
    norm: str
    eps: float
    name: str
    architecture: str
    clean_acc: float
    robust_acc: float
    additional_data: bool
    unreliable: bool
    title: str
    venue: str
    link: str
    footnote: str


@cache
def all_entries() -> tuple[Entry, ...]:
    """Of every leaderboard, in the order of the file."""
    text = read_regular(Path(__file__).with_name("leaderboard.tsv")).decode("utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(map(_entry, rows))


def _entry(row: Mapping[str, str]) -> Entry:
    return Entry(
        dataset=row["dataset"],
        norm=row["threat"],
        eps=parse_number(row["eps"]),
        name=row["entry"],
        architecture=row["their_architecture"],
        clean_acc=float(row["clean_acc"]) / 100,
        robust_acc=float(row["robust_acc"]) / 100,
        additional_data=row["additional_data"] == "true",
        unreliable=row["unreliable"] == "true",
        title=row["title"],
        venue=row["venue"],
        link=row["link"],
        footnote=row["footnote"],
    )


def boards() -> dict[tuple[str, str], float]:
    """The leaderboards that there are, (data set, norm), and the eps of each."""
    found: dict[tuple[str, str], float] = {}
    for entry in all_entries():
        key = entry.dataset, entry.norm
        found[key] = max(found.get(key, 0.0), entry.eps)
    return found


def entries(dataset: str, norm: str, extra: str = ALL) -> list[Entry]:
    """Of one leaderboard, the best first; with `extra` "none", those without additional data."""
    chosen = [
        entry
        for entry in all_entries()
        if (entry.dataset, entry.norm) == (dataset, norm)
        and (extra == ALL or not entry.additional_data)
    ]
    return sorted(chosen, key=lambda entry: -entry.robust_acc)


@dataclass(frozen=True)
class Standing:
    """A result among the entries. `place` counts from 1, of `among` with the result itself;
    `first` and `last` are the places at the ends of the 95 % interval of its robust accuracy.

    `above`: the entry that is next better, if there is one.
    """

    dataset: str
    norm: str
    eps: float
    extra: str
    checkpoint: str
    robust_acc: float
    interval_95: tuple[float, float]
    place: int
    first: int
    last: int
    among: int
    above: Entry | None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {**asdict(self), "source": SOURCE, "date": DATE}

    @property
    def rule(self) -> str:
        return "no additional data" if self.extra == NO_EXTRA else "any data"

    @property
    def line(self) -> str:
        """In one line."""
        above = ""
        if self.above is not None:
            above = f"; next above: {self.above.name}, {percent(self.above.robust_acc)} %"
        return (
            f"{self.checkpoint} on RobustBench ({self.dataset}, {self.norm} "
            f"{show_number(self.eps)}, {self.rule}, {DATE}): {percent(self.robust_acc)} % "
            f"({percent_range(self.interval_95)}) would be place {self.place} of {self.among} "
            f"({self.first}{DASH}{self.last}){above}"
        )


def standing(
    checkpoint: str,
    dataset: str,
    norm: str,
    eps: float,
    extra: str,
    robust_acc: float,
    interval: tuple[float, float],
) -> Standing | None:
    """Where an accuracy under AutoAttack (a fraction), with its interval, would stand; None where
    there is no leaderboard of that data set and threat."""
    board = boards().get((dataset, norm))
    if board is None or abs(eps / board - 1) > SAME_EPS:
        return None
    others = entries(dataset, norm, extra)
    low, high = interval
    better = [entry for entry in others if entry.robust_acc > robust_acc]
    return Standing(
        dataset,
        norm,
        board,
        extra,
        checkpoint,
        robust_acc,
        interval,
        place=1 + len(better),
        first=1 + _above(others, high),
        last=1 + _above(others, low),
        among=1 + len(others),
        above=better[-1] if better else None,
    )


def _above(others: Sequence[Entry], accuracy: float) -> int:
    return sum(entry.robust_acc > accuracy for entry in others)
