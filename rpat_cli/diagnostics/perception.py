"""How much a model's logits change on the way from an image to its perturbed version (Wang & Liu,
ICCV 2025, arXiv 2508.02186).

The paper's evidence for robust perception: along x_mix = (1 - mix) x + mix x', the mean squared
change of the logits, for the samples that an attack breaks and for those that it does not, for
adversarial and for random perturbations; and the accuracy on the way, under "weak" perturbations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages
from rpat_cli.diagnostics.base import Result, Subject
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
from rpat_cli.evaluation.statistics import Accuracy, welch_interval
from rpat_cli.evaluation.verify import batches, checked_logits
from rpat_cli.text import DASH, count, percent

MIXES = tuple(k / 10 for k in range(11))
"""Shares of the perturbed end; one half has to be among them."""

HALF = MIXES.index(0.5)

STRETCHES = {"first_half": (0, HALF), "second_half": (HALF, -1), "whole": (0, -1)}
"""Between which points of the way a change is measured, as indices into `MIXES`."""

STRETCH_NAMES = {
    "first_half": "clean to half",
    "second_half": "half to end",
    "whole": "clean to end",
}

STEPS = 20

CLAIM = "RPAT (Wang & Liu, ICCV 2025)"


@dataclass(frozen=True)
class Change:
    """What happens to `n` samples under one kind of perturbation.

    `first_half`, `second_half`, `whole`: mean squared change of the logits (over samples and
    classes) from clean to half-way, from half-way to the end, and from clean to the end; None
    without samples. `curve`: from clean to each of `MIXES`. `accuracy`: the fraction that is right
    at each of them.
    """

    perturbation: str
    group: str
    n: int
    first_half: float | None
    second_half: float | None
    whole: float | None
    curve: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.perturbation}, {self.group}"

    def cells(self) -> tuple[str, ...]:
        """One row of the table, with dashes where there is no sample."""
        changes = (self.first_half, self.second_half, self.whole)
        texts = [DASH if value is None else f"{value:.4g}" for value in changes]
        weak = self.accuracy[HALF] if self.n else None
        return (self.perturbation, self.group, count(self.n), *texts, percent(weak))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "curve": list(self.curve), "accuracy": list(self.accuracy)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Change":
        whole_way = {name: tuple(values[name]) for name in ("curve", "accuracy")}
        return cls(**{**values, **whole_way})


@dataclass(frozen=True)
class Gap:
    """By how much more the logits of defended adversarial images change than those of broken ones.

    `stretch` is a key of `STRETCHES`; `difference` is the mean change of the defended minus that of
    the broken images, and `interval` its 95 % interval (Welch); None where a group has no image, or
    fewer than two.
    """

    stretch: str
    difference: float | None
    interval: tuple[float, float] | None

    @property
    def claim(self) -> Literal["supports", "contradicts", "cannot tell"]:
        """What this says of the paper's claim that samples on which attacks succeed show the
        smaller change."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "cannot tell"
        return "supports" if self.interval[0] > 0 else "contradicts"

    def in_words(self) -> str:
        """`clean to half: -0.131 (-0.205 to -0.0572), contradicts it`"""
        name = STRETCH_NAMES[self.stretch]
        if self.difference is None or self.interval is None:
            return f"{name}: cannot tell, too few samples"
        low, high = self.interval
        claim = self.claim if self.claim == "cannot tell" else f"{self.claim} it"
        return f"{name}: {self.difference:.3g} ({low:.3g} to {high:.3g}), {claim}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "figure": self.stretch,
            "difference": self.difference,
            "interval": self.interval and list(self.interval),
            "claim": self.claim,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Gap":
        interval = values["interval"]
        return cls(values["figure"], values["difference"], interval and tuple(interval))


@dataclass(frozen=True)
class Perception(Result):
    """The changes for "adversarial" and "random" perturbations, of "broken" and "defended" samples.

    `n` counts all images; both groups are of those that the model gets right without an attack.
    `gaps`: between the groups, for the adversarial perturbations.
    """

    threat: Threat
    steps: int
    n: int
    changes: tuple[Change, ...]
    gaps: tuple[Gap, ...]

    def __getitem__(self, key: tuple[str, str]) -> Change:
        """By perturbation and group. Raises `KeyError`."""
        return {(change.perturbation, change.group): change for change in self.changes}[key]

    def to_dict(self) -> dict[str, Any]:
        return {
            "threat": asdict(self.threat),
            "attack": f"pgd-{self.steps}",
            "n": self.n,
            "mix": list(MIXES),
            "changes": [change.to_dict() for change in self.changes],
            "gaps": [gap.to_dict() for gap in self.gaps],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Perception":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            threat=Threat(**values["threat"]),
            steps=int(values["attack"].removeprefix("pgd-")),
            n=values["n"],
            changes=tuple(map(Change.from_dict, values["changes"])),
            gaps=tuple(map(Gap.from_dict, values["gaps"])),
        )

    def section(self) -> Section:
        measured = [change for change in self.changes if change.n]
        curves = [Line(each.name, tuple(zip(MIXES, each.curve, strict=True))) for each in measured]
        accuracies = [
            Line(each.name, tuple(zip(MIXES, each.accuracy, strict=True))) for each in measured
        ]
        charts = (
            LineChart("Mean squared change of the logits", "mix", tuple(curves)),
            LineChart("Accuracy in percent", "mix", tuple(accuracies), fractions=True),
        )
        claim = Text(
            tuple(gap.in_words() for gap in self.gaps),
            title=f"Do broken images change the logits less, as {CLAIM} says?",
            note="Adversarial perturbations: the mean of the defended images minus that of the "
            "broken ones, with the 95 % interval of this difference (Welch).",
        )
        return Section(
            "How the logits change on the way to perturbed images",
            self.n,
            (Pictures(charts), self._table(), claim),
            detail=f"pgd-{self.steps}, {self.threat.norm}",
        )

    def _table(self) -> Table:
        names = ["n", *STRETCH_NAMES.values(), "weak accuracy"]
        note = (
            "Mean squared change of the logits. Broken and defended by the attack, of the images "
            "that are right without it. Weak accuracy: half-way, at mix 0.5."
        )
        return Table(
            columns(["perturbation", "samples"], names),
            tuple(Cells(change.cells()) for change in self.changes),
            note,
        )


def measure(s: Subject) -> Perception:
    """The diagnostic, on all images."""
    return measure_perception(s.model, s.images, s.y, s.threat, device=s.device, seed=s.seed)


def measure_perception(
    model: nn.Module,
    x: AnyImages,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = STEPS,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
) -> Perception:
    """Walk from images x (N, C, H, W), y (N,) to their adversarial (PGD) and random (uniform noise)
    versions.

    Samples that the model gets wrong without an attack belong to neither group. The model and all
    generators stay as they were. Raises `DataError` without images, `RpatError` for a model without
    finite logits (B, classes).
    """
    attacks = {
        "adversarial": ATTACKS["pgd"](threat, steps=steps),
        "random": ATTACKS["noise"](threat),
    }
    walks: dict[str, list[_Walk]] = {kind: [] for kind in attacks}
    with examining(model, x, device, seed) as (model, device):
        for x_part, y_part in batches(x, y, batch_size, device):
            for kind, attack in attacks.items():
                logits = _logits_on_the_way(model, x_part, attack(model, x_part, y_part))
                walks[kind].append(_Walk.of(logits.cpu(), y_part.cpu()))
    return _analyzed({kind: _Walk.join(parts) for kind, parts in walks.items()}, threat, steps)


def analyze_walks(walks: Mapping[str, Tensor], y: Tensor, threat: Threat, steps: int) -> Perception:
    """`walks`: logits (mixes, N, classes) along `MIXES`, for "adversarial" and "random"
    perturbations."""
    return _analyzed({kind: _Walk.of(each, y) for kind, each in walks.items()}, threat, steps)


@dataclass(frozen=True)
class _Walk:
    """What is kept of the logits on the way of N images: with many classes, the logits themselves
    would fill the memory.

    `right` (mixes, N) bool: at which of `MIXES`. `curve` (mixes, N): mean squared change from clean
    to each of them. `stretches` (3, N): the change over each of `STRETCHES`.
    """

    right: Tensor
    curve: Tensor
    stretches: Tensor

    @classmethod
    def of(cls, logits: Tensor, y: Tensor) -> "_Walk":
        """`logits` (mixes, B, classes) along `MIXES`, labels `y` (B,)."""
        return cls(
            right=logits.argmax(dim=2) == y,
            curve=torch.stack([_distances(logits[0], at) for at in logits]),
            stretches=torch.stack(
                [_distances(logits[a], logits[b]) for a, b in STRETCHES.values()]
            ),
        )

    @classmethod
    def join(cls, parts: "Sequence[_Walk]") -> "_Walk":
        return cls(
            right=torch.cat([part.right for part in parts], dim=1),
            curve=torch.cat([part.curve for part in parts], dim=1),
            stretches=torch.cat([part.stretches for part in parts], dim=1),
        )


def _analyzed(walks: Mapping[str, _Walk], threat: Threat, steps: int) -> Perception:
    adversarial = walks["adversarial"]
    clean, end = adversarial.right[0], adversarial.right[-1]
    groups = {"broken": clean & ~end, "defended": clean & end}
    changes = []
    for (kind, walk), (group, chosen) in product(walks.items(), groups.items()):
        changes.append(_change(kind, group, walk, chosen))
    gaps = []
    for stretch, distance in zip(STRETCHES, adversarial.stretches, strict=True):
        gaps.append(_gap(stretch, distance[groups["defended"]], distance[groups["broken"]]))
    return Perception(threat, steps, len(clean), tuple(changes), tuple(gaps))


def _logits_on_the_way(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    """(mixes, B, classes) logits on the way from x to x_adv."""
    return torch.stack([checked_logits(model, (1 - mix) * x + mix * x_adv) for mix in MIXES])


def _change(kind: str, group: str, walk: _Walk, chosen: Tensor) -> Change:
    """Of the images `chosen` (N,) bool."""
    n = int(chosen.sum())
    if not n:
        return Change(kind, group, 0, None, None, None, (), ())
    curve = tuple(float(at[chosen].mean()) for at in walk.curve)
    accuracy = tuple(Accuracy.of(at[chosen]).value for at in walk.right)
    changes = {
        stretch: float(distance[chosen].mean())
        for stretch, distance in zip(STRETCHES, walk.stretches, strict=True)
    }
    return Change(kind, group, n, **changes, curve=curve, accuracy=accuracy)


def _gap(stretch: str, defended: Tensor, broken: Tensor) -> Gap:
    difference = float(defended.mean() - broken.mean()) if len(defended) and len(broken) else None
    return Gap(stretch, difference, welch_interval(defended, broken))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(N,) mean squared differences of logits (N, classes)."""
    return (a.double() - b.double()).square().mean(dim=1)
