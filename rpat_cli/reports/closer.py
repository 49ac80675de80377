"""The closer looks of a run, prepared for the page: charts, heat maps and the words below them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rpat_cli.diagnostics.eps_curve import EpsCurve
from rpat_cli.diagnostics.loss_surface import LossSurface
from rpat_cli.diagnostics.perception import HALF, MIXES, Change, Perception
from rpat_cli.reports.analyses import (
    LOSS_NAMES,
    STRETCH_NAMES,
    show_gap,
    show_linearity,
    show_mended,
)
from rpat_cli.reports.looks import Look
from rpat_cli.reports.plots import Chart, Series, Tick, line_chart
from rpat_cli.text import percent


@dataclass(frozen=True)
class Cell:
    """One square of a heat map; `share` is where its value lies between the lowest, 0, and the
    highest, 1."""

    x: float
    y: float
    share: float
    text: str


@dataclass(frozen=True)
class HeatMap:
    """A loss over the plane of two directions, -1 to 1 eps along each; `low`, `high` are its
    extremes as text.

    `edge` is the outline of the ball: exact in Linf and L1 where no pixel leaves [0, 1], and in L2
    for directions at a right angle, which a random one nearly is.
    """

    title: str
    description: str
    cells: tuple[Cell, ...]
    size: float
    low: str
    high: str
    ticks: tuple[Tick, ...]
    round_edge: bool

    width, height = 460, 330
    left, top, side = 76.0, 10.0, 280.0

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.side / 2, self.top + self.side / 2


def perception_charts(perception: Perception) -> list[Chart]:
    """How far the logits go, and how often the model is still right, on the way to the perturbed
    images."""
    changes = [change for change in perception.changes if change.n]

    def series(values: Callable[[Change], Sequence[float]]) -> list[Series]:
        return [
            Series(
                f"{each.perturbation}, {each.group}", tuple(zip(MIXES, values(each), strict=True))
            )
            for each in changes
        ]

    curves = series(lambda change: change.curve)
    accuracies = series(lambda change: change.accuracy)
    charts = [
        line_chart("Mean squared change of the logits", curves, _short, x_name="mix"),
        line_chart("Accuracy in per cent", accuracies, _percent, x_name="mix", y_range=(0.0, 1.0)),
    ]
    return [chart for chart in charts if chart]


def eps_chart(curve: EpsCurve) -> Chart | None:
    """Robust accuracy and its interval over eps; the threat's own eps is pointed out."""
    points = tuple((point.eps, point.accuracy.value) for point in curve.points)
    band = tuple((point.eps, *point.accuracy.interval) for point in curve.points)
    inside = curve.threat.eps <= curve.points[-1].eps
    return line_chart(
        f"Robust accuracy in per cent, {curve.attack}",
        [Series(curve.attack, points, band)],
        _percent,
        mark=curve.threat.eps if inside else None,
        mark_name="the threat",
        x_name="eps",
        y_range=(0.0, 1.0),
    )


def slice_chart(surface: LossSurface) -> Chart | None:
    """The cross-entropy along each of the two directions."""
    values, middle = surface.surfaces["ce"].values, len(surface.shares) // 2
    lines = {"the gradient": values[middle], "a random direction": [row[middle] for row in values]}
    series = [
        Series(name, tuple(zip(surface.shares, line, strict=True))) for name, line in lines.items()
    ]
    return line_chart("Cross-entropy along", series, _short, x_name="share of eps")


def heat_maps(surface: LossSurface) -> list[HeatMap]:
    """One for each loss."""
    return [_heat_map(surface, name) for name in surface.surfaces]


def _heat_map(surface: LossSurface, name: str) -> HeatMap:
    rows = surface.surfaces[name].values
    flat = [value for row in rows for value in row]
    low, high = min(flat), max(flat)
    size = HeatMap.side / len(rows)
    cells = []
    for i, (up, row) in enumerate(zip(surface.shares, rows, strict=True)):
        for j, (along, value) in enumerate(zip(surface.shares, row, strict=True)):
            share = (value - low) / (high - low) if high > low else 0.0
            text = f"gradient {along:g}, random {up:g}: {value:.3f}"
            cells.append(
                Cell(HeatMap.left + j * size, HeatMap.top + (len(rows) - 1 - i) * size, share, text)
            )
    title = LOSS_NAMES[name].capitalize()
    return HeatMap(
        title=title,
        description=f"{title} around the images, from {low:.3g} to {high:.3g}",
        cells=tuple(cells),
        size=size,
        low=_short(low),
        high=_short(high),
        ticks=tuple(
            Tick((share + 1) / 2 * HeatMap.side, f"{share:g}") for share in (-1.0, 0.0, 1.0)
        ),
        round_edge=surface.threat.norm == "L2",
    )


def closer(looks: Mapping[str, Look]) -> dict[str, Any]:
    """What closer.html.j2 shows; empty without a look."""
    if not looks:
        return {}
    curves = [looks[name] for name in ("eps_curve", "eps_curve_fmn") if name in looks]
    shown: dict[str, Any] = {
        "looks": looks,
        "curves": [(look, eps_chart(look.result), show_mended(look.result)) for look in curves],
    }
    if "perception" in looks:
        perception = looks["perception"].result
        shown |= {
            "perception_charts": perception_charts(perception),
            "stretches": STRETCH_NAMES.values(),
            "half": HALF,
            "gaps": [(STRETCH_NAMES[gap.figure], show_gap(gap)) for gap in perception.gaps],
        }
    if "loss_surface" in looks:
        surface = looks["loss_surface"].result
        shown |= {
            "heat_maps": heat_maps(surface),
            "slice_chart": slice_chart(surface),
            "linearity": show_linearity(surface),
        }
    return shown


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return percent(value, 1)
