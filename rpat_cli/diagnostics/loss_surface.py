"""The loss around images, on the plane of two directions: the steepest ascent at the image, and a
random one.

Smooth and rising along the gradient is what honest robustness looks like; a cliff, a plateau or
ripples are what gradient masking looks like (Athalye et al., ICML 2018). How far the loss departs
from its first-order prediction is the local linearity of Qin et al., Adversarial robustness through
local linearization, NeurIPS 2019 (arXiv 1907.02610).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.forward import input_gradient
from rpat_cli.attacks.losses import cross_entropy, margin_loss
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, DataError
from rpat_cli.evaluation.verify import batches, checked_logits

SIDE = 21

LOSSES = {"ce": cross_entropy, "margin": margin_loss}


@dataclass(frozen=True)
class Surface:
    """One loss, mean over the images.

    `values[i][j]`: at `LossSurface.shares[i]` of the random direction and `shares[j]` of the
    gradient's.
    `nonlinearity`: per image the largest |loss - first-order prediction| at the points within the
    ball, then the mean; as it looks at one plane only, a lower bound of Qin et al.'s measure.
    `predicted_rise` and `rise`: what the gradient promises at one eps along it, and what comes.
    """

    values: tuple[tuple[float, ...], ...]
    nonlinearity: float
    predicted_rise: float
    rise: float


@dataclass(frozen=True)
class LossSurface:
    """Surfaces of the cross-entropy ("ce") and of the margin loss max_{k≠y} z_k - z_y, around `n`
    images.

    `shares`: places along both directions, in units of eps, from -1 to 1. In the corners of the
    plane the perturbation is up to twice as large as the ball allows.
    """

    threat: Threat
    n: int
    shares: tuple[float, ...]
    surfaces: Mapping[str, Surface]

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "threat": asdict(self.threat),
            "n": self.n,
            "shares": list(self.shares),
            "surfaces": {
                name: {**asdict(surface), "values": [list(row) for row in surface.values]}
                for name, surface in self.surfaces.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LossSurface":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        surfaces = {
            name: Surface(**{**each, "values": tuple(map(tuple, each["values"]))})
            for name, each in values["surfaces"].items()
        }
        return cls(Threat(**values["threat"]), values["n"], tuple(values["shares"]), surfaces)


def survey(
    model: nn.Module,
    x: Tensor,
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
    if not len(x):
        raise DataError("there is no image to look at.")
    if side < 3 or side % 2 == 0:
        raise ConfigError(
            f"a loss surface needs an odd number of points on each side, at least 3; given {side}."
        )
    device = device or x.device
    half = side // 2
    shares = tuple(k / half for k in range(-half, half + 1))  # with an exact 0 among them
    sums = {name: _Sums(torch.zeros(side, side, dtype=torch.float64)) for name in LOSSES}
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        for x_part, y_part in batches(x, y, batch_size, device):
            _look_around(model, x_part, y_part, threat, shares, sums)
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


def _look_around(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    shares: Sequence[float],
    sums: Mapping[str, _Sums],
) -> None:
    """Add one batch to the sums."""
    losses = {name: partial(loss, y=y) for name, loss in LOSSES.items()}
    gradient, centre = {}, {}
    for name, loss in losses.items():
        gradient[name], centre[name], _ = input_gradient(model, x, loss)
    steepest, random = (
        threat.geometry.step(each, x) for each in (gradient["ce"], torch.randn_like(x))
    )
    largest = {name: torch.zeros_like(at_x) for name, at_x in centre.items()}
    for i, j in product(range(len(shares)), repeat=2):
        at = (x + threat.eps * (shares[j] * steepest + shares[i] * random)).clamp(0, 1)
        logits, within = checked_logits(model, at), threat.contains(x, at)
        for name, loss in losses.items():
            reached = loss(logits)
            rise, predicted = (
                reached - centre[name],
                ((at - x) * gradient[name]).flatten(1).sum(dim=1),
            )
            largest[name] = largest[name].maximum((rise - predicted).abs() * within)
            sums[name].values[i, j] += float(reached.sum())
            if shares[i] == 0 and shares[j] == 1:
                sums[name].rise += float(rise.sum())
                sums[name].predicted_rise += float(predicted.sum())
    for name, each in largest.items():
        sums[name].nonlinearity += float(each.sum())
