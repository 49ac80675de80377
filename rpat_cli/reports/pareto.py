"""Geometry of a Pareto plot: clean against robust accuracy, who is beaten by nobody, and labels
that find room.

What it looks like stands in `pareto.svg.j2`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rpat_cli.reports.plots import Tick, nice_ticks, scale

WIDTH, HEIGHT = 1000, 560
MAIN = (56, 16, 660, 506)
SIDE = (734, 16, 984, 236)
"""Left, top, right, bottom of the two frames; the legend stands below the second, or in its
place."""

COLOURS = 8
FEW = 3
"""So many points at least are worth a frame of their own."""

LETTER, BOLD, LINE = 6.9, 7.5, 15.0
"""About as wide as a letter of the labels is, and one of the front's; and how high a line is."""

REACH = (10.0, 17.0, 26.0, 38.0, 54.0, 74.0)
"""How far from its point a label may stand; beyond the second a line leads to it."""

DIRECTIONS = 16

MANY = 24
"""With more names than this only those of the front are written out; the pointer tells the
others."""

LONG = 32
"""So many letters of a name are written."""

Frame = tuple[int, int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Point:
    """One model, or the mean over several seeds. `x`, `y` and their standard deviations are
    fractions.

    Points of one `name` differ in `kind` and are linked. Those of one `family` share a colour: a
    `baseline`, drawn hollow, and what is compared with it. `told` is shown when the pointer rests
    on it.
    """

    name: str
    kind: str
    family: str
    baseline: bool
    x: float
    y: float
    x_sd: float | None = None
    y_sd: float | None = None
    told: str = ""


@dataclass(frozen=True)
class Mark:
    """A point in the picture. `bars` are the ends (x1, y1, x2, y2) of its error bars."""

    x: float
    y: float
    shape: int
    colour: int
    hollow: bool
    front: bool
    bars: tuple[Box, ...]
    told: str


@dataclass(frozen=True)
class Label:
    """`leader`: a line from the point to a label that stands apart from it."""

    text: str
    x: float
    y: float
    colour: int
    front: bool
    box: Box
    leader: Box | None


@dataclass(frozen=True)
class Panel:
    """One frame with its points. `links` join the points of a name, `front` those that nobody
    beats, as SVG points.

    `enlarged` is the part that another frame shows enlarged.
    """

    frame: Frame
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    links: tuple[str, ...]
    front: str
    labels: tuple[Label, ...]
    enlarged: Box | None = None


@dataclass(frozen=True)
class Plot:
    """`kinds` are in order of the shapes; `description` says it in words, for those who do not see
    it."""

    description: str
    x_title: str
    y_title: str
    panels: tuple[Panel, ...]
    kinds: tuple[str, ...]
    hollow: bool
    spread: bool

    width, height, side = WIDTH, HEIGHT, SIDE


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats, from left to right: better in one accuracy and at least as
    good in the other."""
    front: list[Point] = []
    for point in sorted(
        points, key=lambda point: (-point.x, -point.y)
    ):  # whoever beats a point comes before it
        highest = front[-1] if front else None
        if highest is None or point.y > highest.y or (point.x, point.y) == (highest.x, highest.y):
            front.append(point)
    return front[::-1]


def pareto_plot(points: Sequence[Point], x_title: str, y_title: str) -> Plot:
    """The plot of at least one point; where a group lies far above all others, it has a frame of
    its own."""
    front = pareto_front(points)
    upper = _upper_group(points)
    draw = _Artist(points, front)
    whole = upper == list(points)
    main = draw.panel(MAIN, upper, named={point.name for point in upper})
    panels = [main.panel]
    if not whole:
        rest = {point.name for point in points} - {point.name for point in upper}
        side = draw.panel(SIDE, points, named=rest)
        panels.append(side.panel_around(main))
    ends = "; ".join(f"{p.name} ({p.kind}): {100 * p.x:.2f} and {100 * p.y:.2f}" for p in front)
    return Plot(
        description=f"{x_title} against {y_title} of {len(points)} points. Beaten by none: {ends}",
        x_title=x_title,
        y_title=y_title,
        panels=tuple(panels),
        kinds=tuple(draw.kinds),
        hollow=any(point.baseline for point in points),
        spread=any(point.x_sd or point.y_sd for point in points),
    )


def _upper_group(points: Sequence[Point]) -> list[Point]:
    """Those above the widest gap in y, if it takes more than half of the height; otherwise all."""
    heights = sorted(point.y for point in points)
    gaps = [(high - low, high) for low, high in pairwise(heights)]
    widest, floor = max(gaps, default=(0.0, 0.0))
    upper = [point for point in points if point.y >= floor]
    return upper if 2 * widest > heights[-1] - heights[0] and len(upper) >= FEW else list(points)


@dataclass(frozen=True)
class _Drawn:
    """A panel with its scales and the part of the data that it shows."""

    panel: Panel
    to_x: Callable[[float], float]
    to_y: Callable[[float], float]
    shown: Box

    def panel_around(self, other: "_Drawn") -> Panel:
        """This panel, with a box around what the other shows."""
        left, low, right, high = other.shown
        box = (self.to_x(left), self.to_y(high), self.to_x(right), self.to_y(low))
        return Panel(**{**vars(self.panel), "enlarged": box})


class _Artist:
    """Draws panels of the same points with the same colours, shapes and front."""

    def __init__(self, points: Sequence[Point], front: Sequence[Point]) -> None:
        self.kinds = list(dict.fromkeys(point.kind for point in points))
        self._families = list(dict.fromkeys(point.family for point in points))
        self._front = front
        self._on_front = {id(point) for point in front}

    def panel(self, frame: Frame, points: Sequence[Point], *, named: set[str]) -> _Drawn:
        left, top, right, bottom = frame
        shown = _range(points)
        to_x, to_y = scale(shown[0], shown[2], left, right), scale(shown[1], shown[3], bottom, top)
        marks = [self._mark(point, to_x, to_y) for point in points]
        panel = Panel(
            frame=frame,
            x_ticks=_ticks(shown[0], shown[2], to_x, (right - left) // 60),
            y_ticks=_ticks(shown[1], shown[3], to_y, (bottom - top) // 45),
            marks=tuple(sorted(marks, key=lambda mark: mark.front)),  # those of the front on top
            links=tuple(_links(points, to_x, to_y)),
            front=_path(self._front, to_x, to_y),
            labels=tuple(self._labels(frame, points, marks, named)),
        )
        return _Drawn(panel, to_x, to_y, shown)

    def _mark(
        self, point: Point, to_x: Callable[[float], float], to_y: Callable[[float], float]
    ) -> Mark:
        x, y = to_x(point.x), to_y(point.y)
        bars = []
        if point.x_sd:
            bars.append((to_x(point.x - point.x_sd), y, to_x(point.x + point.x_sd), y))
        if point.y_sd:
            bars.append((x, to_y(point.y + point.y_sd), x, to_y(point.y - point.y_sd)))
        shape, colour = self.kinds.index(point.kind), self._families.index(point.family) % COLOURS
        return Mark(
            x,
            y,
            shape,
            colour,
            point.baseline,
            id(point) in self._on_front,
            tuple(bars),
            point.told,
        )

    def _labels(
        self, frame: Frame, points: Sequence[Point], marks: Sequence[Mark], named: set[str]
    ) -> Iterator[Label]:
        """One for each name, where it finds room, the front's first; a name without room is left to
        the pointer."""
        chosen: dict[str, Mark] = {}
        for point, mark in sorted(
            zip(points, marks, strict=True), key=lambda both: (not both[1].front, -both[0].y)
        ):
            if point.name in named and (mark.front or len(named) <= MANY):
                chosen.setdefault(point.name, mark)
        room = _Room(frame, marks)
        for name, mark in chosen.items():
            text = name if len(name) <= LONG else f"{name[: LONG - 1]}\N{HORIZONTAL ELLIPSIS}"
            cost, box, far = min(
                room.places((BOLD if mark.front else LETTER) * len(text) + 2 * _PAD, mark)
            )
            if cost < (_TAKEN if mark.front else _COVERED):
                room.taken.append(box)
                leader = _leader(mark, box) if far else None
                yield Label(text, box[0] + _PAD, box[3] - 4, mark.colour, mark.front, box, leader)


_PAD = 2.0
_CROSSED, _COVERED, _TAKEN = 9.0, 120.0, 1000.0
"""What it costs a label to stand on an error bar; on a point; on another label or beyond the
frame."""


class _Room:
    """What labels must not hide: points, then error bars and the front, and above all the labels in
    `taken`."""

    def __init__(self, frame: Frame, marks: Sequence[Mark]) -> None:
        self._frame = frame
        self._points = [(mark.x - 7, mark.y - 7, mark.x + 7, mark.y + 7) for mark in marks]
        self._lines = [bar for mark in marks for bar in mark.bars]
        front = sorted((mark for mark in marks if mark.front), key=lambda mark: mark.x)
        for a, b in pairwise(front):
            steps = [(a.x + (b.x - a.x) * k / 12, a.y + (b.y - a.y) * k / 12) for k in range(1, 12)]
            self._lines += [(x, y, x, y) for x, y in steps]
        self.taken: list[Box] = []

    def places(self, width: float, mark: Mark) -> Iterator[tuple[float, Box, bool]]:
        """Where a label of the mark could stand: (what that costs, its box, whether it needs a
        leader)."""
        points, lines, taken = (
            np.array(boxes).reshape(-1, 4) for boxes in (self._points, self._lines, self.taken)
        )
        left, top, right, bottom = self._frame
        for ring, reach in enumerate(REACH):
            for step in range(DIRECTIONS):
                angle = 2 * math.pi * step / DIRECTIONS
                dx, dy = math.cos(angle), math.sin(angle)
                # The side of the box that faces the point is `reach` away from it, or from the ring
                # around it.
                distance = reach + 3 * mark.front
                x, y = mark.x + dx * (distance + width / 2), mark.y + dy * (distance + LINE / 2)
                box = (x - width / 2, y - LINE / 2, x + width / 2, y + LINE / 2)
                outside = box[0] < left or box[1] < top or box[2] > right or box[3] > bottom
                cost = _TAKEN * (outside + _overlaps(box, taken))
                cost += _COVERED * _overlaps(box, points) + _CROSSED * _overlaps(box, lines)
                # A little nearer is a little better, and at the side is easier to read than above
                # or below.
                yield cost + reach + 2 * abs(dy), box, ring > 1


def _overlaps(box: Box, others: NDArray[np.float64]) -> int:
    """How many of the others (N, 4) a box touches."""
    apart = (
        (others[:, 0] > box[2])
        | (others[:, 2] < box[0])
        | (others[:, 1] > box[3])
        | (others[:, 3] < box[1])
    )
    return len(others) - int(apart.sum())


def _leader(mark: Mark, box: Box) -> Box:
    """From the point to the nearest place of the box."""
    return (
        mark.x,
        mark.y,
        min(max(mark.x, box[0]), box[2]),
        min(max(mark.y, box[1] + 3), box[3] - 3),
    )


def _range(points: Sequence[Point]) -> Box:
    """Left, low, right, high of the data with its error bars and some room around, within [0, 1] as
    far as it can."""
    xs = [value for p in points for value in (p.x - (p.x_sd or 0), p.x + (p.x_sd or 0))]
    ys = [value for p in points for value in (p.y - (p.y_sd or 0), p.y + (p.y_sd or 0))]
    return *_around(xs)[:1], *_around(ys)[:1], *_around(xs)[1:], *_around(ys)[1:]


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = max(min(values), 0.0), min(max(values), 1.0)
    room = max(0.08 * (high - low), 0.004)
    return low - room, high + room


def _ticks(
    low: float, high: float, place: Callable[[float], float], about: int
) -> tuple[Tick, ...]:
    return tuple(
        Tick(place(at), f"{100 * at:g}") for at in nice_ticks(low, high, about) if low <= at <= high
    )


def _links(
    points: Sequence[Point], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> Iterator[str]:
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    return (_path(own, to_x, to_y) for own in by_name.values() if len(own) > 1)


def _path(
    points: Sequence[Point], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> str:
    return " ".join(f"{to_x(point.x):g},{to_y(point.y):g}" for point in points)
