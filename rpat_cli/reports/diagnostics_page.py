"""What the diagnostics of a run show, prepared for the page: pictures become coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from rpat_cli.diagnostics.blocks import (
    Block,
    Examples,
    HeatMap,
    LineChart,
    Pictures,
    Raster,
    Section,
    Table,
    Text,
)
from rpat_cli.reports.image_data import data_uri
from rpat_cli.reports.plots import Chart, Series, Tick, line_chart
from rpat_cli.reports.saved_diagnostic import SavedDiagnostic
from rpat_cli.text import percent


@dataclass(frozen=True)
class Square:
    """One square of a heat map, with its upper left corner; `share` is where its value lies between
    the lowest, 0, and the highest, 1."""

    x: float
    y: float
    share: float
    text: str


@dataclass(frozen=True)
class HeatPicture:
    """A heat map in the coordinates of the picture; `low`, `high` are its extremes as text."""

    source: HeatMap
    description: str
    squares: tuple[Square, ...]
    size: float
    low: str
    high: str
    ticks: tuple[Tick, ...]

    width: ClassVar[int] = 460
    height: ClassVar[int] = 330
    left: ClassVar[float] = 76.0
    top: ClassVar[float] = 10.0
    side: ClassVar[float] = 280.0

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.side / 2, self.top + self.side / 2


Picture: TypeAlias = Chart | HeatPicture


@dataclass(frozen=True)
class Panel:
    """Texts and tables one below the other."""

    blocks: tuple[Text | Table, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, the texts about them in the same grid, and a note below."""

    pictures: tuple[Picture, ...]
    note: str
    texts: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Shown:
    """An image as the page holds it: all of it in its address."""

    source: Raster
    address: str


@dataclass(frozen=True)
class Strip:
    """Images side by side, their title above."""

    title: str
    detail: str
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class Strips:
    """Examples, as many beside each other as there is room for, and a note below."""

    strips: tuple[Strip, ...]
    note: str


Group: TypeAlias = Panel | Gallery | Strips


@dataclass(frozen=True)
class PageSection:
    """One diagnostic on the page; `name` is its key, for the ids of its pictures."""

    name: str
    saved: SavedDiagnostic
    section: Section
    groups: tuple[Group, ...]


def page_sections(diagnostics: Mapping[str, SavedDiagnostic]) -> list[PageSection]:
    """What diagnostics.html.j2 shows."""
    sections = []
    for name, saved in diagnostics.items():
        section = saved.result.section()
        sections.append(PageSection(name, saved, section, tuple(_grouped(section.blocks))))
    return sections


def strips(block: Examples) -> Strips:
    """Examples with their images as data, so that the page asks for nothing."""
    shown = []
    for example in block.examples:
        images = tuple(Shown(raster, data_uri(raster)) for raster in example.images)
        shown.append(Strip(example.title, example.detail, images))
    return Strips(tuple(shown), block.note)


def _grouped(blocks: Sequence[Block]) -> list[Group]:
    groups: list[Group] = []
    for block in blocks:
        last = groups[-1] if groups else None
        if isinstance(block, Pictures):
            groups.append(Gallery(_drawn(block), block.note))
        elif isinstance(block, Examples):
            groups.append(strips(block))
        elif isinstance(last, Gallery) and isinstance(block, Text):
            groups[-1] = replace(last, texts=(*last.texts, block))
        elif isinstance(last, Panel):
            groups[-1] = Panel((*last.blocks, block))
        else:
            groups.append(Panel((block,)))
    return groups


def _drawn(block: Pictures) -> tuple[Picture, ...]:
    """Charts without a point are left out."""
    pictures: list[Picture] = []
    for picture in block.pictures:
        if isinstance(picture, HeatMap):
            pictures.append(heat_picture(picture))
        elif chart := chart_of(picture):
            pictures.append(chart)
    return tuple(pictures)


def chart_of(chart: LineChart) -> Chart | None:
    """None if no line has a point."""
    return line_chart(
        chart.title,
        [Series(line.name, line.points, line.band) for line in chart.lines],
        _percent if chart.fractions else _short,
        mark=chart.mark,
        mark_name=chart.mark_name,
        x_name=chart.x_name,
        y_range=(0.0, 1.0) if chart.fractions else None,
    )


def heat_picture(heat: HeatMap) -> HeatPicture:
    """The picture of a heat map: x to the right, y upwards."""
    lowest, highest = min(map(min, heat.values)), max(map(max, heat.values))
    spread = highest - lowest
    size = HeatPicture.side / len(heat.values)
    squares = []
    for i, (y, row) in enumerate(zip(heat.ticks, heat.values, strict=True)):
        top = HeatPicture.top + (len(heat.values) - 1 - i) * size
        for j, (x, value) in enumerate(zip(heat.ticks, row, strict=True)):
            share = (value - lowest) / spread if spread else 0.0
            text = f"{heat.x_name} {x:g}, {heat.y_name} {y:g}: {value:.3f}"
            squares.append(Square(HeatPicture.left + j * size, top, share, text))
    ticks = [Tick((at + 1) / 2 * HeatPicture.side, f"{at:g}") for at in (-1.0, 0.0, 1.0)]
    return HeatPicture(
        source=heat,
        description=f"{heat.title}, from {lowest:.3g} to {highest:.3g}",
        squares=tuple(squares),
        size=size,
        low=_short(lowest),
        high=_short(highest),
        ticks=tuple(ticks),
    )


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return percent(value, 1)
