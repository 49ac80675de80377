"""The results of a sweep as files: the tables, a Pareto plot, and one HTML page with all of it."""

import shlex
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from rpat_cli.records.files import write_whole
from rpat_cli.reports.html import template
from rpat_cli.reports.pareto import Point, certain_front, pareto_plot
from rpat_cli.reports.pareto_picture import Plot
from rpat_cli.reports.saved_report import AUTOATTACK, UNION
from rpat_cli.sweep.folder import SWEEPS
from rpat_cli.sweep.intervals import Difference, Stat
from rpat_cli.sweep.table import (
    SCORES,
    SweepTable,
    TableRow,
    row_count,
    signed,
    spread,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from rpat_cli.text import percent
from rpat_cli.version import __version__

CLEAN = "clean"


def write_table(table: SweepTable, folder: Path) -> None:
    """Write `table.json`, `.csv`, `.md`, `.tex`, `.html` and `pareto.svg`, each atomically.

    Raises `RunFolderError`.
    """
    formats = {"json": to_json, "csv": to_csv, "md": to_markdown, "tex": to_latex}
    for suffix, render in formats.items():
        write_whole(folder / f"table.{suffix}", render(table))
    picture = to_svg(table)
    write_whole(folder / "pareto.svg", picture)
    write_whole(folder / "table.html", to_html(table, folder, picture))


@dataclass(frozen=True)
class PageCell:
    """`71.20 ± 0.35`, and the difference to the baseline: `decided` is +1 or -1 where its interval
    excludes 0."""

    value: str
    difference: str = ""
    decided: int = 0


@dataclass(frozen=True)
class PageRow:
    """A row of the table as the page shows it. `front`: it is on the Pareto front of the plot,
    also within the deviations over seeds."""

    row: TableRow
    count: str
    cells: tuple[PageCell, ...]
    front: bool


@dataclass(frozen=True)
class Best:
    """The row with the highest mean of a metric."""

    metric: str
    row: TableRow
    stat: Stat


@dataclass(frozen=True)
class Tally:
    """Of `n` differences in a metric, how many have their whole 95 % interval above zero, and how
    many below."""

    metric: str
    n: int
    above: int
    below: int


def to_svg(table: SweepTable) -> str:
    """The plot as an SVG file; or, if there is none, the reason in words."""
    plot = plot_of(table)
    return template("pareto.svg.j2").render(plot=plot, reason="" if plot else no_plot(table))


def to_html(table: SweepTable, folder: Path, picture: str) -> str:
    """The whole page, with the result of `to_svg` as `picture`. External text (labels, logs) is
    escaped."""
    robust = robust_metric(table)
    groups = grouped_rows(table, robust)
    best = [best_of(table, metric) for metric in (CLEAN, robust) if metric]
    has_plot = bool(robust and points(table, robust))
    return template("table.html.j2").render(
        table=table,
        groups=groups,
        best=[found for found in best if found],
        tally=tally(table, robust) if robust else None,
        rings=any(line.front for line in chain.from_iterable(groups)),
        plot=picture if has_plot else None,
        no_plot=no_plot(table),
        scores=AUTOATTACK in table.metrics,
        done=sum(group[0].row.n for group in groups),
        planned=sum(group[0].row.planned for group in groups),
        command=command(table, folder),
        folder=shlex.quote(str(folder)),
        version=__version__,
    )


def grouped_rows(table: SweepTable, robust: str | None) -> list[list[PageRow]]:
    """The table's rows, grouped by variant."""
    best = certain_front(points(table, robust)) if robust else []
    front = {(point.name, point.kind) for point in best}
    shown = []
    for row in table.rows:
        cells = tuple(cell(row, metric) for metric in table.metrics)
        is_front = (row.label, row.checkpoint) in front
        shown.append(PageRow(row, row_count(row), cells, is_front))
    return [list(group) for _, group in groupby(shown, key=lambda item: item.row.label)]


def robust_metric(table: SweepTable) -> str | None:
    """The metric for robustness: the union of several threats, AutoAttack, or else, of the attacks
    that most rows have, the one that leaves the lowest accuracy; None if there is no attack."""
    found: dict[str, list[float]] = {}
    for row in table.rows:
        for metric, stat in row.stats.items():
            if metric not in (CLEAN, *SCORES):
                found.setdefault(metric, []).append(stat.mean)
    for metric in (UNION, AUTOATTACK):
        if metric in found:
            return metric
    return min(found, key=lambda metric: (-len(found[metric]), sum(found[metric])), default=None)


def points(table: SweepTable, robust: str) -> list[Point]:
    """A point for every row that has both accuracies."""
    baselines = {row.baseline for row in table.rows}
    measured = [row for row in table.rows if CLEAN in row.stats and robust in row.stats]
    return [_point(row, robust, row.label in baselines) for row in measured]


def _point(row: TableRow, robust: str, is_baseline: bool) -> Point:
    x, y = row.stats[CLEAN], row.stats[robust]
    lines = [f"{row.label}, {row.checkpoint}", f"{CLEAN} {spread(x)}", f"{robust} {spread(y)}"]
    return Point(
        name=row.label,
        kind=row.checkpoint,
        family=row.baseline or row.label,
        baseline=is_baseline,
        x=x.mean,
        y=y.mean,
        x_sd=x.sd,
        y_sd=y.sd,
        tooltip="\n".join(lines),
    )


def plot_of(table: SweepTable) -> Plot | None:
    robust = robust_metric(table)
    found = points(table, robust) if robust else []
    return pareto_plot(found, "clean accuracy", f"accuracy under {robust}") if found else None


def no_plot(table: SweepTable) -> str:
    """The reason why there is no plot, if there is none."""
    if not any(row.n for row in table.rows):
        return "No trial is finished yet."
    return (
        "No robust accuracy was measured. Add an attack to eval: in the sweep file, such as "
        "pgd-20 or autoattack."
    )


def cell(row: TableRow, metric: str) -> PageCell:
    stat, difference = row.stats.get(metric), row.differences.get(metric)
    value = spread(stat) if stat else percent(None)
    if difference is None:
        return PageCell(value)
    return PageCell(value, signed(difference), decided(difference))


def decided(difference: Difference) -> int:
    """+1 or -1 if the whole interval is above or below zero, otherwise 0."""
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
    """The command that produces the table, or resumes the sweep."""
    out = [] if folder == SWEEPS / table.name else ["--out", str(folder)]
    sets = [word for text in table.assignments for word in ("--set", text)]
    return shlex.join(["rpat", "sweep", table.source, *out, *sets])
