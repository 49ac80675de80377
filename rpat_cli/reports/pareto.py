"""Pareto plots: clean against robust accuracy, with the front of those that no other one beats.

`pareto_labels` finds room for the names; `pareto.svg.j2` draws the result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rpat_cli.reports.pareto_labels import place_labels
from rpat_cli.reports.pareto_picture import MAIN, SIDE, Box, Frame, Mark, Panel, Plot
from rpat_cli.reports.plots import Tick, nice_ticks, scale

COLORS = 8

MIN_GROUP = 3
"""The fewest points that are worth a frame of their own."""

MAX_NAMES = 24
"""With more names than this only those of the front are labeled; the others have tooltips."""


@dataclass(frozen=True)
class Point:
    """One model, or the mean over several seeds. `x`, `y` and their standard deviations are
    fractions.

    Points of one `name` differ in `kind` and are linked. Those of one `family` share a color: a
    `baseline`, drawn hollow, and what is compared with it.
    """

    name: str
    kind: str
    family: str
    baseline: bool
    x: float
    y: float
    x_sd: float | None = None
    y_sd: float | None = None
    tooltip: str = ""

    def may_lose_to(self, other: "Point") -> bool:
        """Whether another model could be at least as good in both accuracies, but for the seeds.

        Without deviations never: being on the front says that.
        """
        sds = self.x_sd, self.y_sd, other.x_sd, other.y_sd
        if other.name == self.name or not any(sds):
            return False
        x_sd, y_sd = (
            (self.x_sd or 0.0) + (other.x_sd or 0.0),
            (self.y_sd or 0.0) + (other.y_sd or 0.0),
        )
        return other.x + x_sd >= self.x and other.y + y_sd >= self.y


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats (better in one accuracy and at least as good in the
    other), from left to right."""
    front: list[Point] = []
    # From the right: any point that beats another one comes before it.
    for point in sorted(points, key=lambda point: (-point.x, -point.y)):
        highest = front[-1] if front else None
        if highest is None or point.y > highest.y or (point.x, point.y) == (highest.x, highest.y):
            front.append(point)
    return front[::-1]


def certain_front(points: Sequence[Point]) -> list[Point]:
    """Those of the front that no point of another name may beat: its accuracies raised, and theirs
    lowered, by one standard deviation. Where deviations are not known the means decide."""
    return [point for point in pareto_front(points) if not any(map(point.may_lose_to, points))]


def pareto_plot(points: Sequence[Point], x_title: str, y_title: str) -> Plot:
    """The plot of at least one point; a group far above all other points has a frame of its own."""
    front = pareto_front(points)
    upper = _upper_group(points)
    artist = _Artist(points, front)
    main = artist.panel(MAIN, upper, named={point.name for point in upper})
    panels = [main.panel]
    if upper != list(points):
        rest = {point.name for point in points} - {point.name for point in upper}
        side = artist.panel(SIDE, points, named=rest)
        panels.append(side.with_enlarged(main))
    ends = "; ".join(f"{p.name} ({p.kind}): {100 * p.x:.2f} and {100 * p.y:.2f}" for p in front)
    return Plot(
        description=f"{x_title} against {y_title} of {len(points)} points. Pareto front: {ends}",
        x_title=x_title,
        y_title=y_title,
        panels=tuple(panels),
        kinds=tuple(artist.kinds),
        hollow=any(point.baseline for point in points),
        spread=any(point.x_sd or point.y_sd for point in points),
    )


def _upper_group(points: Sequence[Point]) -> list[Point]:
    """The points above the widest gap in y, if it is more than half of the height; otherwise
    all."""
    heights = sorted(point.y for point in points)
    gaps = [(high - low, high) for low, high in pairwise(heights)]
    widest, floor = max(gaps, default=(0.0, 0.0))
    upper = [point for point in points if point.y >= floor]
    is_apart = 2 * widest > heights[-1] - heights[0]
    return upper if is_apart and len(upper) >= MIN_GROUP else list(points)


@dataclass(frozen=True)
class _Axes:
    """From fractions to the coordinates of a frame; `shown` is (left, low, right, high) of the
    data."""

    to_x: Callable[[float], float]
    to_y: Callable[[float], float]
    shown: Box

    @classmethod
    def of(cls, frame: Frame, points: Sequence[Point]) -> "_Axes":
        left, top, right, bottom = frame
        shown = _range(points)
        to_x = scale(shown[0], shown[2], left, right)
        return cls(to_x, scale(shown[1], shown[3], bottom, top), shown)

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{self.to_x(point.x):g},{self.to_y(point.y):g}" for point in points)


@dataclass(frozen=True)
class _Drawn:
    """A panel with its axes."""

    panel: Panel
    axes: _Axes

    def with_enlarged(self, other: "_Drawn") -> Panel:
        """This panel, with a box around what the other one shows."""
        left, low, right, high = other.axes.shown
        to_x, to_y = self.axes.to_x, self.axes.to_y
        return replace(self.panel, enlarged=(to_x(left), to_y(high), to_x(right), to_y(low)))


class _Artist:
    """Draws panels of the same points with the same colors, shapes and front."""

    def __init__(self, points: Sequence[Point], front: Sequence[Point]) -> None:
        self.kinds = list(dict.fromkeys(point.kind for point in points))
        self._families = list(dict.fromkeys(point.family for point in points))
        self._front = front
        self._on_front = {id(point) for point in front}
        self._certain = {id(point) for point in certain_front(points)}

    def panel(self, frame: Frame, points: Sequence[Point], *, named: set[str]) -> _Drawn:
        left, top, right, bottom = frame
        axes = _Axes.of(frame, points)
        marks = [self._mark(point, axes) for point in points]
        labeled = _labeled(points, marks, named)
        panel = Panel(
            frame=frame,
            x_ticks=_ticks(axes.shown[0], axes.shown[2], axes.to_x, (right - left) // 60),
            y_ticks=_ticks(axes.shown[1], axes.shown[3], axes.to_y, (bottom - top) // 45),
            marks=tuple(sorted(marks, key=lambda mark: mark.front)),  # those of the front on top
            links=tuple(_links(points, axes)),
            front=axes.path(self._front),
            labels=tuple(place_labels(frame, marks, labeled)),
        )
        return _Drawn(panel, axes)

    def _mark(self, point: Point, axes: _Axes) -> Mark:
        x, y = axes.to_x(point.x), axes.to_y(point.y)
        bars = []
        if point.x_sd:
            bars.append((axes.to_x(point.x - point.x_sd), y, axes.to_x(point.x + point.x_sd), y))
        if point.y_sd:
            bars.append((x, axes.to_y(point.y + point.y_sd), x, axes.to_y(point.y - point.y_sd)))
        return Mark(
            x,
            y,
            shape=self.kinds.index(point.kind),
            color=self._families.index(point.family) % COLORS,
            hollow=point.baseline,
            front=id(point) in self._on_front,
            ring=id(point) in self._certain,
            bars=tuple(bars),
            tooltip=point.tooltip,
        )


def _labeled(points: Sequence[Point], marks: Sequence[Mark], named: set[str]) -> Mapping[str, Mark]:
    """The mark that each name is written at, those of the front first, then from the top."""
    pairs = sorted(
        zip(points, marks, strict=True), key=lambda pair: (not pair[1].front, -pair[0].y)
    )
    chosen: dict[str, Mark] = {}
    for point, mark in pairs:
        if point.name in named and (mark.front or len(named) <= MAX_NAMES):
            chosen.setdefault(point.name, mark)
    return chosen


def _range(points: Sequence[Point]) -> Box:
    """Left, low, right, high of the data with its error bars and a margin, within [0, 1] as far as
    possible."""
    left, right = _with_margin([(p.x, p.x_sd or 0.0) for p in points])
    low, high = _with_margin([(p.y, p.y_sd or 0.0) for p in points])
    return left, low, right, high


def _with_margin(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The range of values with their deviations, and a margin on both sides."""
    low = max(min(value - sd for value, sd in values), 0.0)
    high = min(max(value + sd for value, sd in values), 1.0)
    margin = max(0.08 * (high - low), 0.004)
    return low - margin, high + margin


def _ticks(
    low: float, high: float, to_place: Callable[[float], float], about: int
) -> tuple[Tick, ...]:
    inside = [at for at in nice_ticks(low, high, about) if low <= at <= high]
    return tuple(Tick(to_place(at), f"{100 * at:g}") for at in inside)


def _links(points: Sequence[Point], axes: _Axes) -> Iterator[str]:
    """A line through the points of each name with several kinds."""
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    return (axes.path(own) for own in by_name.values() if len(own) > 1)
