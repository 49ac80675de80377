"""Robust accuracy against eps: where does a model's robustness end, and does it end at all?

A single radius says little of a model, and a curve that never falls to nothing says that the attack
is at fault (Carlini et al., On evaluating adversarial robustness, 2019, arXiv 1902.06705). Two ways
to draw it: PGD anew at every radius, or one attack that looks for the smallest perturbation of each
image, whose sizes are all of the curve at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import DataError
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.verify import batches, checked_logits, verify

Name = Literal["pgd", "fmn"]

MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Radii beside 0, as multiples of the threat's; the curve ends where nothing is left, or at the
whole box."""

STEPS: Mapping[Name, int] = {"pgd": 20, "fmn": 100}

BrokenAt = Callable[[float], Tensor]
"""From a radius to (M,) bool: which images an attack breaks within it."""


@dataclass(frozen=True)
class Point:
    """What is right at radius `eps`, of all images.

    `mended`: images that the attack broke at a smaller radius and not at this one. They count as
    broken here too, since this ball contains the smaller one; many of them speak against the
    attack.
    """

    eps: float
    accuracy: Accuracy
    mended: int


@dataclass(frozen=True)
class EpsCurve:
    """Robust accuracy at rising radii, the first of which is 0; `attack` is "pgd-20", say."""

    threat: Threat
    attack: str
    points: tuple[Point, ...]

    @property
    def n(self) -> int:
        return self.points[0].accuracy.n

    @property
    def mended(self) -> int:
        return sum(point.mended for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "threat": asdict(self.threat),
            "attack": self.attack,
            "n": self.n,
            "points": [
                {
                    "eps": point.eps,
                    "acc": point.accuracy.value,
                    "interval_95": list(point.accuracy.interval),
                    "correct": point.accuracy.correct,
                    "mended": point.mended,
                }
                for point in self.points
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpsCurve":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        points = [
            Point(p["eps"], Accuracy(p["correct"], values["n"]), p["mended"])
            for p in values["points"]
        ]
        return cls(Threat(**values["threat"]), values["attack"], tuple(points))


def trace(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    attack: Name = "pgd",
    steps: int | None = None,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
) -> EpsCurve:
    """Attack images x (N, C, H, W), y (N,), at 0 and at `MULTIPLES` of the threat's eps.

    "pgd" takes `steps` (20) steps of a quarter of the radius at each; "fmn" (Pintor et al., NeurIPS
    2021; 100 steps) searches once. The model and all generators stay as they were. Raises
    `DataError` without images, `RpatError` for a model without finite logits (B, classes),
    `MissingExtraError` for "fmn" without foolbox.
    """
    if not len(x):
        raise DataError("there is no image to look at.")
    device = device or x.device
    steps = STEPS[attack] if steps is None else steps
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        parts = _right(model, batches(x, y, batch_size, device))
        whole = threat.whole_box(x)
        broken_at = (_by_pgd if attack == "pgd" else _by_fmn)(model, parts, whole, steps)
        radii = sorted({min(k * threat.eps, whole.eps) for k in MULTIPLES} - {0.0})
        points = draw(radii, broken_at, n=len(x), right=sum(len(part) for part, _ in parts))
    return EpsCurve(threat, f"{attack}-{steps}", points)


def draw(radii: list[float], broken_at: BrokenAt, *, n: int, right: int) -> tuple[Point, ...]:
    """The curve over rising `radii`, begun at 0, where `right` images of `n` are; it ends where
    nothing is left."""
    points = [Point(0.0, Accuracy(right, n), 0)]
    broken = torch.zeros(right, dtype=torch.bool)
    for radius in radii:
        if broken.all():
            break
        now = broken_at(radius)
        mended, broken = int((broken & ~now).sum()), broken | now
        points.append(Point(radius, Accuracy(right - int(broken.sum()), n), mended))
    return tuple(points)


Parts = list[tuple[Tensor, Tensor]]
"""Batches of images that the model gets right, and their labels."""


def _right(model: nn.Module, given: Iterable[tuple[Tensor, Tensor]]) -> Parts:
    parts = []
    for x, y in given:
        right = checked_logits(model, x).argmax(dim=1) == y
        if right.any():
            parts.append((x[right], y[right]))
    return parts


def _by_pgd(model: nn.Module, parts: Parts, whole: Threat, steps: int) -> BrokenAt:
    def broken_at(radius: float) -> Tensor:
        threat = Threat(whole.norm, radius)
        pgd = ATTACKS["pgd"](threat, steps=steps, keep="worst")
        return torch.cat(
            [verify(model, threat, x, y, pgd(model, x, y)).broken.cpu() for x, y in parts]
        )

    return broken_at


def _by_fmn(model: nn.Module, parts: Parts, whole: Threat, steps: int) -> BrokenAt:
    """The sizes of the smallest perturbations found anywhere in the box: infinite where there is
    none."""
    fmn = ATTACKS["fmn"](whole, steps=steps)
    found = [verify(model, whole, x, y, fmn(model, x, y)) for x, y in parts]
    sizes = [each.distance.where(each.broken, torch.inf).cpu() for each in found]
    distance = torch.cat(sizes) if sizes else torch.zeros(0)
    return lambda radius: distance <= radius
