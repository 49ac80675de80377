"""Geometry of line charts: from numbers to coordinates. The template gives them their style."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float]

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 16, 30
MAX_DOTS = 40
"""Up to so many points each gets a dot; a line of a single point would be invisible otherwise."""


@dataclass(frozen=True)
class Series:
    """A named line through (epoch, value) points, in order of the epochs; `band` is (epoch, low,
    high) around it.

    `of` says whose it is where a chart shows several runs: lines of one name have one color. Those
    that are `under` are drawn lighter, dashed and below the others.
    """

    name: str
    points: tuple[Point, ...]
    band: tuple[tuple[float, float, float], ...] = ()
    of: str = ""
    under: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.of}" if self.of else self.name


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series in the coordinates of the picture; `last` is its last value as text, `band` an
    outline around it, `color` the number of its color."""

    name: str
    path: str
    dots: tuple[Point, ...]
    last: str
    band: str = ""
    color: int = 0
    under: bool = False


@dataclass(frozen=True)
class Hover:
    """A column of the picture with its tooltip."""

    at: float
    width: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    description: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    hovers: tuple[Hover, ...]
    mark: float | None = None
    mark_name: str = "best"
    x_name: str = "epoch"

    @property
    def is_overlay(self) -> bool:
        return any(line.under for line in self.lines)

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def line_chart(
    title: str,
    series: Sequence[Series],
    show: Callable[[float], str],
    *,
    mark: float | None = None,
    mark_name: str = "best",
    x_name: str = "epoch",
    y_range: tuple[float, float] | None = None,
) -> Chart | None:
    """A chart of the series over the epochs, with `mark` as an epoch to highlight; `None` if no
    series has a point.

    `show` formats a value. The vertical axis includes 0 unless `y_range` is given. Another `x_name`
    makes it a chart over any other quantity.
    """
    series = [item for item in series if item.points]
    if not series:
        return None
    xs = _epochs(series)
    names = list(dict.fromkeys(item.name for item in series))
    y_at = nice_ticks(*(y_range or _range_with_zero(series)), 5)
    to_x = scale(xs[0], xs[-1], LEFT + 6, WIDTH - RIGHT - 6)
    to_y = scale(y_at[0], y_at[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title=title,
        description=_describe(f"{title}, {x_name}", series, xs, show),
        lines=tuple(_line(item, names.index(item.name), to_x, to_y, show) for item in series),
        x_ticks=tuple(Tick(to_x(x), f"{x:g}") for x in _x_ticks(xs, whole=x_name == "epoch")),
        y_ticks=tuple(Tick(to_y(y), show(y).removesuffix(".0")) for y in y_at),
        hovers=tuple(_hovers(xs, to_x, x_name, series, show)),
        mark=None if mark is None else to_x(mark),
        mark_name=mark_name,
        x_name=x_name,
    )


def _epochs(series: Sequence[Series]) -> list[float]:
    """All x values of the series, each once, in order."""
    found: set[float] = set()
    for item in series:
        found.update(x for x, _ in item.points)
    return sorted(found)


def _range_with_zero(series: Sequence[Series]) -> tuple[float, float]:
    values = [0.0]
    for item in series:
        values += [y for _, y in item.points]
    return min(values), max(values)


def _x_ticks(xs: Sequence[float], *, whole: bool) -> list[float]:
    """Round numbers within the data; only integers if `whole`."""
    ticks = [tick for tick in nice_ticks(xs[0], xs[-1], 7) if xs[0] <= tick <= xs[-1]]
    return [tick for tick in ticks if tick.is_integer()] if whole else ticks


def _hovers(
    xs: Sequence[float],
    to_x: Callable[[float], float],
    x_name: str,
    series: Sequence[Series],
    show: Callable[[float], str],
) -> Iterator[Hover]:
    """A column with a tooltip at every x."""
    width = (WIDTH - RIGHT - LEFT) / max(len(xs), 2)
    for x in xs:
        yield Hover(to_x(x) - width / 2, width, _tooltip(f"{x_name} {x:g}", x, series, show))


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """About so many round numbers, 1, 2 or 5 times a power of ten apart, that enclose
    [low, high]."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A linear map from [low, high] to [start, end]; a single value goes to the middle."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 2)


def _line(
    series: Series,
    color: int,
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    show: Callable[[float], str],
) -> Line:
    points = tuple((to_x(x), to_y(y)) for x, y in series.points)
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    upper = [(x, high) for x, _, high in series.band]
    lower = [(x, low) for x, low, _ in reversed(series.band)]
    band = " ".join(f"{to_x(x):g},{to_y(y):g}" for x, y in (*upper, *lower))
    dots = points if len(points) <= MAX_DOTS else ()
    last = show(series.points[-1][1])
    return Line(series.label, path, dots, last, band, color, series.under)


def _tooltip(
    heading: str, at: float, series: Sequence[Series], show: Callable[[float], str]
) -> str:
    """The values of all series at one x, a line each."""
    lines = [heading]
    for item in series:
        lines += [f"{item.label}: {show(y)}" for x, y in item.points if x == at]
    return "\n".join(lines)


def _describe(
    title: str, series: Sequence[Series], epochs: Sequence[float], show: Callable[[float], str]
) -> str:
    """The chart in words: its text alternative."""
    ends = "; ".join(
        f"{item.label} from {show(item.points[0][1])} to {show(item.points[-1][1])}"
        for item in series
    )
    return f"{title} {epochs[0]:g} to {epochs[-1]:g}: {ends}"
