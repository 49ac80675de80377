"""Geometry of reliability diagrams: accuracy against confidence in each bin, and its number of
images.

DeGroot & Fienberg, The Statistician 1983; Guo et al., ICML 2017, arXiv 1706.04599.
"""

from dataclasses import dataclass

from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.reports.plots import Tick
from rpat_cli.text import count, percent

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 446, 12, 212
STRIP_TOP, STRIP_BOTTOM = 222, 258
GAP = 2.0
"""Pixels between the bars of neighboring bins."""


@dataclass(frozen=True)
class Column:
    """One bin: a bar up to its accuracy, a line at its mean confidence, and a bar for its number of
    images in the strip below."""

    x: float
    width: float
    accuracy_y: float
    confidence_y: float
    strip_y: float
    text: str

    @property
    def gap_top(self) -> float:
        """The upper end of the gap between accuracy and confidence, the bin's calibration error."""
        return min(self.accuracy_y, self.confidence_y)

    @property
    def gap_height(self) -> float:
        return abs(self.accuracy_y - self.confidence_y)


@dataclass(frozen=True)
class Reliability:
    """`kind` is "clean" or "robust"; it selects the color."""

    title: str
    kind: str
    ece: float
    description: str
    columns: tuple[Column, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, RIGHT, TOP, BOTTOM
    strip_top, strip_bottom = STRIP_TOP, STRIP_BOTTOM


def reliability(title: str, kind: str, calibration: Calibration) -> Reliability:
    """The diagram of a calibration with at least one image."""
    most = max(part.n for part in calibration.bins)
    columns, texts = [], []
    for part in calibration.bins:
        confidence, accuracy = percent(part.confidence, 1), percent(part.accuracy, 1)
        text = f"confidence {confidence} %, accuracy {accuracy} % ({count(part.n)} images)"
        columns.append(
            Column(
                x=_x(part.low) + GAP / 2,
                width=round(_x(part.high) - _x(part.low) - GAP, 2),
                accuracy_y=_y(part.accuracy),
                confidence_y=_y(part.confidence),
                strip_y=round(STRIP_BOTTOM - part.n / most * (STRIP_BOTTOM - STRIP_TOP), 2),
                text=text,
            )
        )
        texts.append(text)
    shares = [fifth / 5 for fifth in range(6)]
    return Reliability(
        title=title,
        kind=kind,
        ece=calibration.ece,
        description=(
            f"{title}, expected calibration error {percent(calibration.ece)} %: {'; '.join(texts)}"
        ),
        columns=tuple(columns),
        x_ticks=tuple(Tick(_x(share), percent(share, 0)) for share in shares),
        y_ticks=tuple(Tick(_y(share), percent(share, 0)) for share in shares),
    )


def _x(share: float) -> float:
    return round(LEFT + share * (RIGHT - LEFT), 2)


def _y(share: float) -> float:
    return round(BOTTOM - share * (BOTTOM - TOP), 2)
