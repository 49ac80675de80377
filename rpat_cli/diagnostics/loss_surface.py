"""The loss around images, on the plane of two directions: the steepest ascent at the image, and a
random one.

A smooth rise along the gradient is what true robustness looks like; a cliff, a plateau or ripples
are what gradient masking looks like (Athalye et al., ICML 2018, arXiv 1802.00420). How far the loss
departs from its first-order prediction is the local linearity of Qin et al., Adversarial robustness
through local linearization, NeurIPS 2019 (arXiv 1907.02610).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import LossFn
from rpat_cli.attacks.forward import input_gradient
from rpat_cli.attacks.losses import INNER_LOSSES
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages
from rpat_cli.diagnostics.base import Result, Subject
from rpat_cli.diagnostics.blocks import (
    Cells,
    HeatMap,
    Line,
    LineChart,
    Pictures,
    Section,
    Table,
    Text,
    columns,
)
from rpat_cli.diagnostics.examining import examining
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.verify import batches, checked_logits
from rpat_cli.text import show_number

IMAGES = 64
"""At most so many, each class by its share."""

SIDE = 21

LOSSES = {name: INNER_LOSSES[name] for name in ("ce", "margin")}
"""Both rise where the model errs: the second one is max_{k≠y} z_k - z_y."""

LOSS_NAMES = {"ce": "cross-entropy", "margin": "margin loss"}


@dataclass(frozen=True)
class Surface:
    """One loss, mean over the images.

    `values[i][j]`: at `LossSurface.shares[i]` of the random direction and `shares[j]` of the
    gradient's.
    `nonlinearity`: per image the largest |loss - first-order prediction| at the points within the
    ball, then the mean; since it is of one plane only, a lower bound of Qin et al.'s measure.
    `predicted_rise` and `rise`: the rise of the loss at one eps along the gradient, by the
    first-order prediction and as measured.
    """

    values: tuple[tuple[float, ...], ...]
    nonlinearity: float
    predicted_rise: float
    rise: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "values": [list(row) for row in self.values]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Surface":
        return cls(**{**values, "values": tuple(map(tuple, values["values"]))})


@dataclass(frozen=True)
class LossSurface(Result):
    """Surfaces of the cross-entropy ("ce") and of the margin loss max_{k≠y} z_k - z_y ("margin"),
    around `n` images.

    `shares`: positions along both directions, in units of eps, from -1 to 1. In the corners of the
    plane the perturbation is up to twice as large as the ball allows.
    """

    threat: Threat
    n: int
    shares: tuple[float, ...]
    surfaces: Mapping[str, Surface]

    def to_dict(self) -> dict[str, Any]:
        return {
            "threat": asdict(self.threat),
            "n": self.n,
            "shares": list(self.shares),
            "surfaces": {name: surface.to_dict() for name, surface in self.surfaces.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LossSurface":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        surfaces = {name: Surface.from_dict(each) for name, each in values["surfaces"].items()}
        return cls(Threat(**values["threat"]), values["n"], tuple(values["shares"]), surfaces)

    def section(self) -> Section:
        linearity = Text(
            tuple(self._linearity(name) for name in self.surfaces),
            title="How linear it is",
            note="Means over the images. Gradients need a smooth slope; cliffs, plateaus and "
            "ripples hide the way from an attack. Linearity as in Qin et al., NeurIPS 2019 (arXiv "
            "1907.02610), here a lower bound.",
        )
        heat_maps = [self._heat_map(name) for name in self.surfaces]
        pictures = Pictures(
            (*heat_maps, self._slices()),
            self._table(),
            "Within the dashed line the perturbation lies in the ball.",
        )
        return Section(
            "The loss around the images",
            self.n,
            (pictures, linearity),
            detail=f"{self.threat.norm}, eps {show_number(self.threat.eps)}",
        )

    def _linearity(self, name: str) -> str:
        each = self.surfaces[name]
        return (
            f"{LOSS_NAMES[name]}: one eps along the gradient predicts {each.predicted_rise:+.3g} "
            f"and gives {each.rise:+.3g}; in this plane's part of the ball it departs from linear "
            f"by up to {each.nonlinearity:.3g}."
        )

    def _heat_map(self, name: str) -> HeatMap:
        """With the ball's outline: exact in Linf and L1 where no pixel leaves [0, 1], and in L2 for
        directions at a right angle, which a random one nearly is."""
        return HeatMap(
            f"{LOSS_NAMES[name].capitalize()} around the images",
            "gradient",
            "random direction",
            self.shares,
            self.surfaces[name].values,
            "circle" if self.threat.norm == "L2" else "diamond",
            unit="share of eps",
        )

    def _slices(self) -> LineChart:
        """The cross-entropy along each of the two directions."""
        values, middle = self.surfaces["ce"].values, len(self.shares) // 2
        slices = {
            "the gradient": values[middle],
            "a random direction": [row[middle] for row in values],
        }
        lines = [
            Line(name, tuple(zip(self.shares, values, strict=True)))
            for name, values in slices.items()
        ]
        return LineChart("Cross-entropy along", "share of eps", tuple(lines))

    def _table(self) -> Table:
        """Both losses at a few points along each direction."""
        middle, last = len(self.shares) // 2, len(self.shares) - 1
        points = sorted({0, middle // 2, middle, middle + (middle + 1) // 2, last})
        rows = []
        for name, surface in self.surfaces.items():
            along = [_short(surface.values[middle][k]) for k in points]
            across = [_short(surface.values[k][middle]) for k in points]
            rows += [
                Cells((LOSS_NAMES[name], "gradient", *along)),
                Cells(("", "random", *across)),
            ]
        shares = [f"{self.shares[k]:g}" for k in points]
        return Table(columns(["loss", "direction"], shares), tuple(rows), "Columns: shares of eps.")


def _short(value: float) -> str:
    """Short enough for seven columns on 80 characters."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def measure(s: Subject) -> LossSurface:
    """The diagnostic, on a few images."""
    s = s.with_at_most(IMAGES)
    return measure_loss_surface(s.model, s.images, s.y, s.threat, device=s.device, seed=s.seed)


def measure_loss_surface(
    model: nn.Module,
    x: AnyImages,
    y: Tensor,
    threat: Threat,
    *,
    side: int = SIDE,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
) -> LossSurface:
    """Losses at `side` x `side` points around images x (N, C, H, W), y (N,), clipped to [0, 1].

    Both directions have norm 1 in the threat's norm and are made alike, one from the gradient of
    the cross-entropy, one from noise: signs in Linf, unit length in L2, the largest few pixels in
    L1. The model and all generators stay as they were. Raises `DataError` without images,
    `ConfigError` unless `side` is odd, so that the image itself is among the points, and at least
    3, `RpatError` for a model without finite logits (B, classes).
    """
    if side < 3 or side % 2 == 0:
        raise ConfigError(
            f"a loss surface needs an odd number of points on each side, at least 3; given {side}."
        )
    half = side // 2
    shares = tuple(k / half for k in range(-half, half + 1))  # with an exact 0 among them
    sums = {name: _Sums(torch.zeros(side, side, dtype=torch.float64)) for name in LOSSES}
    with examining(model, x, device, seed) as (model, device):
        for x_part, y_part in batches(x, y, batch_size, device):
            _add_batch(model, x_part, y_part, threat, shares, sums)
    surfaces = {name: each.mean(len(x)) for name, each in sums.items()}
    return LossSurface(threat, len(x), shares, surfaces)


@dataclass
class _Sums:
    """Sums over images; the fields are those of `Surface`."""

    values: Tensor
    nonlinearity: float = 0.0
    predicted_rise: float = 0.0
    rise: float = 0.0

    def mean(self, n: int) -> Surface:
        values = tuple(tuple(row) for row in (self.values / n).tolist())
        return Surface(values, self.nonlinearity / n, self.predicted_rise / n, self.rise / n)


def _add_batch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    shares: Sequence[float],
    sums: Mapping[str, _Sums],
) -> None:
    """Add one batch to the sums."""
    losses = {name: _with_labels(loss, y) for name, loss in LOSSES.items()}
    gradient, center = {}, {}
    for name, loss in losses.items():
        gradient[name], center[name], _ = input_gradient(model, x, loss)
    steepest = threat.geometry.step(gradient["ce"], x)
    random = threat.geometry.step(torch.randn_like(x), x)
    largest = {name: torch.zeros_like(at_x) for name, at_x in center.items()}
    for i, j in product(range(len(shares)), repeat=2):
        at = (x + threat.eps * (shares[j] * steepest + shares[i] * random)).clamp(0, 1)
        logits, within = checked_logits(model, at), threat.contains(x, at)
        for name, loss in losses.items():
            reached = loss(logits)
            rise = reached - center[name]
            # at - x and not the direction itself: clipping to [0, 1] may have shortened it.
            predicted = ((at - x) * gradient[name]).flatten(1).sum(dim=1)
            largest[name] = largest[name].maximum((rise - predicted).abs() * within)
            sums[name].values[i, j] += float(reached.sum())
            if shares[i] == 0 and shares[j] == 1:
                sums[name].rise += float(rise.sum())
                sums[name].predicted_rise += float(predicted.sum())
    for name, each in largest.items():
        sums[name].nonlinearity += float(each.sum())


def _with_labels(loss: Callable[[Tensor, Tensor], Tensor], y: Tensor) -> LossFn:
    return lambda logits: loss(logits, y)
