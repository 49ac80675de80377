"""The results of a sweep for the eye: a Pareto plot, and one HTML page with all there is. And all
their files."""

import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rpat_cli.records.files import write_whole
from rpat_cli.reports.html import template
from rpat_cli.reports.pareto import Plot, Point, pareto_front, pareto_plot
from rpat_cli.reports.scores import percent
from rpat_cli.sweep.folder import SWEEPS
from rpat_cli.sweep.intervals import Difference, Stat
from rpat_cli.sweep.table import (
    AUTOATTACK,
    SCORES,
    Row,
    SweepTable,
    row_count,
    signed,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from rpat_cli.version import __version__

CLEAN = "clean"


def write_table(table: SweepTable, folder: Path) -> None:
    """`table.json`, `.csv`, `.md`, `.tex`, `.html` and `pareto.svg`, each whole or not at all.

    Raises `RunFolderError`.
    """
    for suffix, render in {
        "json": to_json,
        "csv": to_csv,
        "md": to_markdown,
        "tex": to_latex,
    }.items():
        write_whole(folder / f"table.{suffix}", render(table))
    picture = to_svg(table)
    write_whole(folder / "pareto.svg", picture)
    write_whole(folder / "table.html", to_html(table, folder, picture))


@dataclass(frozen=True)
class Cell:
    """`71.20 ± 0.35`, and the difference to the baseline: `decided` is +1 or -1 where its interval
    leaves out 0."""

    value: str
    difference: str = ""
    decided: int = 0


@dataclass(frozen=True)
class Line:
    """A row of the table as it is shown. `front`: no other row beats it in both accuracies of the
    plot."""

    row: Row
    count: str
    cells: tuple[Cell, ...]
    front: bool


@dataclass(frozen=True)
class Best:
    """The row with the highest mean of a metric."""

    metric: str
    row: Row
    stat: Stat


@dataclass(frozen=True)
class Tally:
    """Of `n` differences in a metric: how many have all of their 95 % interval above zero, how many
    below."""

    metric: str
    n: int
    above: int
    below: int


def to_svg(table: SweepTable) -> str:
    """The plot as a picture of its own; or in words, why there is none."""
    plot = plot_of(table)
    return template("pareto.svg.j2").render(plot=plot, reason="" if plot else no_plot(table))


def to_html(table: SweepTable, folder: Path, picture: str) -> str:
    """The whole page, with what `to_svg` gave as `picture`. What comes from outside (labels, logs)
    is escaped."""
    robust = robust_metric(table)
    groups = lines(table, robust)
    return template("table.html.j2").render(
        table=table,
        groups=groups,
        best=[best for metric in (CLEAN, robust) if metric and (best := best_of(table, metric))],
        tally=tally(table, robust) if robust else None,
        plot=picture if any(line.front for group in groups for line in group) else None,
        no_plot=no_plot(table),
        scores=AUTOATTACK in table.metrics,
        done=sum(group[0].row.n for group in groups),
        planned=sum(group[0].row.planned for group in groups),
        command=command(table, folder),
        folder=shlex.quote(str(folder)),
        version=__version__,
    )


def lines(table: SweepTable, robust: str | None) -> list[list[Line]]:
    """The table's rows, those of each variant together."""
    front = (
        {(point.name, point.kind) for point in pareto_front(points(table, robust))}
        if robust
        else set()
    )
    shown = [
        Line(
            row, row_count(row), tuple(cell(row, metric) for metric in table.metrics), key in front
        )
        for row in table.rows
        for key in [(row.label, row.checkpoint)]
    ]
    return [list(group) for _, group in groupby(shown, key=lambda line: line.row.label)]


def robust_metric(table: SweepTable) -> str | None:
    """What stands for robustness: AutoAttack, or else the attack that leaves least of what most
    rows have; or None."""
    found: dict[str, list[float]] = {}
    for row in table.rows:
        for metric, stat in row.stats.items():
            if metric not in (CLEAN, *SCORES):
                found.setdefault(metric, []).append(stat.mean)
    if AUTOATTACK in found:
        return AUTOATTACK
    return min(found, key=lambda metric: (-len(found[metric]), sum(found[metric])), default=None)


def points(table: SweepTable, robust: str) -> list[Point]:
    """Every row that has both accuracies."""
    baselines = {row.baseline for row in table.rows}
    return [
        Point(
            name=row.label,
            kind=row.checkpoint,
            family=row.baseline or row.label,
            baseline=row.label in baselines,
            x=row.stats[CLEAN].mean,
            y=row.stats[robust].mean,
            x_sd=row.stats[CLEAN].sd,
            y_sd=row.stats[robust].sd,
            told="\n".join(
                [
                    f"{row.label}, {row.checkpoint}",
                    *(f"{name} {spread(row.stats[name])}" for name in (CLEAN, robust)),
                ]
            ),
        )
        for row in table.rows
        if CLEAN in row.stats and robust in row.stats
    ]


def plot_of(table: SweepTable) -> Plot | None:
    robust = robust_metric(table)
    found = points(table, robust) if robust else []
    return pareto_plot(found, "clean accuracy", f"accuracy under {robust}") if found else None


def no_plot(table: SweepTable) -> str:
    """Why there is no plot, while there is none."""
    if not any(row.n for row in table.rows):
        return "No trial is finished yet."
    return (
        "No robust accuracy was measured. Add an attack to eval: in the sweep file, such as "
        "pgd-20 or autoattack."
    )


def spread(stat: Stat) -> str:
    return percent(stat.mean) + (f" ± {percent(stat.sd)}" if stat.sd is not None else "")


def cell(row: Row, metric: str) -> Cell:
    stat, difference = row.stats.get(metric), row.differences.get(metric)
    value = spread(stat) if stat else percent(None)
    return Cell(value, signed(difference), decided(difference)) if difference else Cell(value)


def decided(difference: Difference) -> int:
    """+1 or -1 where the whole interval lies above or below zero, otherwise 0."""
    low, high = difference.interval or (0.0, 0.0)
    return (low > 0) - (high < 0)


def best_of(table: SweepTable, metric: str) -> Best | None:
    rows = [row for row in table.rows if metric in row.stats]
    row = max(rows, key=lambda row: row.stats[metric].mean, default=None)
    return Best(metric, row, row.stats[metric]) if row else None


def tally(table: SweepTable, metric: str) -> Tally | None:
    found = [row.differences[metric] for row in table.rows if metric in row.differences]
    signs = [decided(difference) for difference in found if difference.interval]
    return Tally(metric, len(signs), signs.count(1), signs.count(-1)) if signs else None


def command(table: SweepTable, folder: Path) -> str:
    """What to type to get all of this again, or the rest of it."""
    out = [] if folder == SWEEPS / table.name else ["--out", str(folder)]
    return shlex.join(["rpat", "sweep", table.source, *out])
