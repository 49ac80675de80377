"""Robust accuracy against eps: where does a model's robustness end, and does it end at all?

A single radius says little about a model, and a curve that never falls to 0 says that the attack
fails (Carlini et al., On evaluating adversarial robustness, 2019, arXiv 1902.06705). There are two
ways to measure it: PGD anew at every radius, or one attack that looks for the smallest perturbation
of each image, whose sizes give the whole curve at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.base import Dataset
from rpat_cli.data.choice import Limit
from rpat_cli.data.reading import AnyImages
from rpat_cli.diagnostics.base import Measure, Result, Subject
from rpat_cli.diagnostics.blocks import (
    Cells,
    Line,
    LineChart,
    Pictures,
    Section,
    Table,
    Text,
    columns,
)
from rpat_cli.diagnostics.examining import examining
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.verify import batches, checked_logits, verify
from rpat_cli.text import count, counted, percent, percent_range

IMAGES = 1000
"""At most so many, each class by its share."""

Name = Literal["pgd", "fmn"]

MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Radii after 0, as multiples of the threat's eps. The curve ends where no image is left, or at the
radius whose ball holds the whole box."""

STEPS: Mapping[Name, int] = {"pgd": 20, "fmn": 100}

BrokenAt = Callable[[float], Tensor]
"""From a radius to (M,) bool: which images an attack breaks within it."""


@dataclass(frozen=True)
class Point:
    """Robust accuracy at radius `eps`, over all images.

    `missed`: how many images the attack broke at a smaller radius and not at this one. They count
    as broken here too, since this ball contains the smaller one; many of them mean a weak attack.
    """

    eps: float
    accuracy: Accuracy
    missed: int


@dataclass(frozen=True)
class EpsCurve(Result):
    """Robust accuracy at rising radii, the first of which is 0; `attack` is "pgd-20", say."""

    threat: Threat
    attack: str
    points: tuple[Point, ...]

    @property
    def n(self) -> int:
        return self.points[0].accuracy.n

    @property
    def missed(self) -> int:
        return sum(point.missed for point in self.points)

    def to_dict(self) -> dict[str, Any]:
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
                    "mended": point.missed,
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

    def section(self) -> Section:
        text = Text(
            (self._missed_in_words(),),
            title="What the curve says",
            note="A curve that does not fall to about 0 as eps grows means a failing attack, not a "
            "robust model.",
        )
        chart = Pictures((self._chart(),), self._table(), "The band is the 95 % interval.")
        return Section(
            "Where does the robustness end?",
            self.n,
            (chart, text),
            detail=f"{self.attack}, {self.threat.norm}",
        )

    def _missed_in_words(self) -> str:
        if not self.missed:
            return "Every image that is broken at some eps is broken at all larger ones too."
        cases = counted(self.missed, "case")
        return (
            f"Missed, {cases}: an image that was broken at a smaller eps was not at a larger one, "
            "where the attack must have missed it. It counts as broken, since the larger ball "
            "contains the smaller."
        )

    def _chart(self) -> LineChart:
        points = tuple((point.eps, point.accuracy.value) for point in self.points)
        band = tuple((point.eps, *point.accuracy.interval) for point in self.points)
        inside = self.threat.eps <= self.points[-1].eps
        return LineChart(
            f"Robust accuracy in percent, {self.attack}",
            "eps",
            (Line(self.attack, points, band),),
            fractions=True,
            mark=self.threat.eps if inside else None,
            mark_name="the threat",
        )

    def _table(self) -> Table:
        rows = []
        for point in self.points:
            accuracy = point.accuracy
            cells = (
                f"{point.eps:.4g}",
                percent(accuracy.value),
                percent_range(accuracy.interval),
                count(accuracy.correct),
                count(point.missed),
            )
            rows.append(Cells(cells, strong=point.eps == self.threat.eps))
        names = ["eps", "accuracy", "95 % interval", "left", "missed"]
        return Table(columns([], names), tuple(rows))


def measure(s: Subject, attack: Name = "pgd") -> EpsCurve:
    """The diagnostic, with either attack."""
    s = s.with_at_most(IMAGES)
    return measure_eps_curve(
        s.model, s.images, s.y, s.threat, attack=attack, device=s.device, seed=s.seed
    )


def prepare_fmn(data: Dataset, limit: Limit | None) -> Measure:  # noqa: ARG001
    """The diagnostic with FMN. Raises `MissingExtraError` without foolbox."""
    ATTACKS["fmn"](Threat("Linf", 1.0))
    return partial(measure, attack="fmn")


def measure_eps_curve(
    model: nn.Module,
    x: AnyImages,
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
    2021, arXiv 2102.12827; 100 steps) searches once. The model and all generators stay as they
    were. Raises `DataError` without images, `RpatError` for a model without finite logits (B,
    classes), `MissingExtraError` for "fmn" without foolbox.
    """
    steps = STEPS[attack] if steps is None else steps
    with examining(model, x, device, seed) as (model, device):
        parts = _Right.of(model, x, y, batch_size, device)
        whole = threat.whole_box(x[:1])
        search = _by_pgd if attack == "pgd" else _by_fmn
        broken_at = search(model, parts, whole, steps)
        radii = sorted({min(k * threat.eps, whole.eps) for k in MULTIPLES} - {0.0})
        points = draw(radii, broken_at, n=len(x), right=len(parts))
    return EpsCurve(threat, f"{attack}-{steps}", points)


def draw(radii: list[float], broken_at: BrokenAt, *, n: int, right: int) -> tuple[Point, ...]:
    """The curve over rising `radii`. It begins at 0, where `right` images of `n` are classified
    correctly, and ends where none is left."""
    points = [Point(0.0, Accuracy(right, n), 0)]
    broken = torch.zeros(right, dtype=torch.bool)
    for radius in radii:
        if broken.all():
            break
        now = broken_at(radius)
        missed, broken = int((broken & ~now).sum()), broken | now
        points.append(Point(radius, Accuracy(right - int(broken.sum()), n), missed))
    return tuple(points)


@dataclass(frozen=True)
class _Right:
    """The images that the model gets right and their labels, batch by batch, on the device; only
    one batch of them is in memory at a time. `right`: a mask for each batch of all images."""

    x: AnyImages
    y: Tensor
    batch_size: int
    device: torch.device
    right: Sequence[Tensor]

    @classmethod
    def of(
        cls, model: nn.Module, x: AnyImages, y: Tensor, batch_size: int, device: torch.device
    ) -> "_Right":
        right = [
            checked_logits(model, x_part).argmax(dim=1) == y_part
            for x_part, y_part in batches(x, y, batch_size, device)
        ]
        return cls(x, y, batch_size, device, right)

    def __len__(self) -> int:
        return sum(int(right.sum()) for right in self.right)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        given = batches(self.x, self.y, self.batch_size, self.device)
        for (x, y), right in zip(given, self.right, strict=True):
            if right.any():
                yield x[right], y[right]


def _by_pgd(model: nn.Module, parts: _Right, whole: Threat, steps: int) -> BrokenAt:
    def broken_at(radius: float) -> Tensor:
        threat = Threat(whole.norm, radius)
        pgd = ATTACKS["pgd"](threat, steps=steps, keep="worst")
        return torch.cat(
            [verify(model, threat, x, y, pgd(model, x, y)).broken.cpu() for x, y in parts]
        )

    return broken_at


def _by_fmn(model: nn.Module, parts: _Right, whole: Threat, steps: int) -> BrokenAt:
    """One search in the whole box: an image is broken within every radius that its smallest
    perturbation fits in, and within none where no perturbation was found."""
    fmn = ATTACKS["fmn"](whole, steps=steps)
    found = [verify(model, whole, x, y, fmn(model, x, y)) for x, y in parts]
    sizes = [each.distance.where(each.broken, torch.inf).cpu() for each in found]
    distance = torch.cat(sizes) if sizes else torch.zeros(0)
    return lambda radius: distance <= radius
