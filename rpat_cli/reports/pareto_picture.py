"""What a Pareto plot consists of, in coordinates of the picture; `pareto.svg.j2` draws it."""

from dataclasses import dataclass

from rpat_cli.reports.plots import Tick

WIDTH, HEIGHT = 1000, 560
MAIN = (56, 16, 660, 506)
SIDE = (734, 16, 984, 236)
"""Left, top, right, bottom of the two frames; the legend is below the second, or in its place."""

Frame = tuple[int, int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Mark:
    """A point in the picture. `bars` are the ends (x1, y1, x2, y2) of its error bars.

    `front`: it is on the Pareto front of the means; `ring`: within the deviations too.
    """

    x: float
    y: float
    shape: int
    color: int
    hollow: bool
    front: bool
    ring: bool
    bars: tuple[Box, ...]
    tooltip: str


@dataclass(frozen=True)
class Label:
    """The name of a point. `leader` is a line from the point to a label at some distance."""

    text: str
    x: float
    y: float
    color: int
    front: bool
    box: Box
    leader: Box | None


@dataclass(frozen=True)
class Panel:
    """One frame with its points, as SVG points: `links` join the points of a name, `front` those of
    the Pareto front.

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
    """`kinds` are in the order of the shapes; `description` is the text alternative of the
    picture."""

    description: str
    x_title: str
    y_title: str
    panels: tuple[Panel, ...]
    kinds: tuple[str, ...]
    hollow: bool
    spread: bool

    width, height, side = WIDTH, HEIGHT, SIDE
