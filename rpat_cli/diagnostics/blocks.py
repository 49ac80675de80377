"""What a diagnostic has to show, as plain data: text, tables, line charts, heat maps and images.

A diagnostic says what is to be seen and not how: rpat_cli.reports renders these blocks for the
terminal (diagnostics_terminal) and for the page (diagnostics_page). Numbers in text and tables are
written out already; those in pictures are still numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level = Literal["PASS", "WARN", "FAIL"]


@dataclass(frozen=True)
class Text:
    """A title, a list of lines, and a note in smaller type below; each may be missing.

    With a `level` the first line is the statement that the level stands for.
    """

    lines: tuple[str, ...]
    title: str = ""
    note: str = ""
    level: Level | None = None


@dataclass(frozen=True)
class Column:
    """`numeric` columns are aligned to the right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cells:
    """One row of a table: the text of each cell.

    `strong` rows stand out. `level` goes with the first cell. `note` is a smaller text below the
    last cell; the terminal, which has less room, shows it in strong rows only.
    """

    cells: tuple[str, ...]
    strong: bool = False
    level: Level | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A named line through (x, y) points with rising x; `band` is (x, low, high) around it."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class LineChart:
    """Lines over a common x; those without points are left out.

    `fractions`: y is in [0, 1] and is shown in percent. `mark` is an x to point out, by
    `mark_name`.
    """

    title: str
    x_name: str
    lines: tuple[Line, ...]
    fractions: bool = False
    mark: float | None = None
    mark_name: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A quantity over a plane: `values[i][j]` at height `ticks[i]` and at `ticks[j]` to the right.

    `ticks` are symmetric around 0 and rise to 1, in units of `unit`. `ball` is the outline of the
    points with norm at most 1: a diamond, or a circle.
    """

    title: str
    x_name: str
    y_name: str
    ticks: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    ball: Literal["diamond", "circle"]
    unit: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures that belong together, with a note on how to read them.

    `table` has the same in numbers, for where no picture can be drawn and no other block has them.
    """

    pictures: tuple[LineChart | HeatMap, ...]
    table: Table | None = None
    note: str = ""


@dataclass(frozen=True)
class Raster:
    """A small image, shown enlarged: `pixels` are `height` rows of `width` pixels of `channels` (1
    or 3) bytes each. `text` is what stands below."""

    width: int
    height: int
    channels: int
    pixels: bytes
    text: str


@dataclass(frozen=True)
class Example:
    """Images that belong together, side by side, by their title; `detail` in smaller type."""

    title: str
    images: tuple[Raster, ...]
    detail: str = ""


@dataclass(frozen=True)
class Examples:
    """Images of the data set and what was made of them, with a note on how to read them."""

    examples: tuple[Example, ...]
    note: str = ""


Block: TypeAlias = Text | Table | Pictures | Examples


@dataclass(frozen=True)
class Section:
    """All that one diagnostic shows. `detail` says in a few words what it was measured with; `n` is
    the number of images."""

    title: str
    n: int
    blocks: tuple[Block, ...]
    detail: str = ""


def columns(text: Sequence[str], numeric: Sequence[str]) -> tuple[Column, ...]:
    """Some columns of text, then some of numbers, by their titles."""
    left = [Column(title, numeric=False) for title in text]
    return (*left, *map(Column, numeric))
