"""How much a model's logits change on the way from an image to its perturbed version (Wang & Liu,
ICCV 2025).

The paper's evidence for robust perception: along x_mix = (1 - mix) x + mix x', the mean squared
change of the logits, for the samples that an attack breaks and for those that it doesn't, for
adversarial and for random perturbations; and the accuracy on the way, under "weak" perturbations.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import DataError
from rpat_cli.evaluation.statistics import Accuracy, welch_interval
from rpat_cli.evaluation.verify import batches, checked_logits

MIXES = tuple(k / 10 for k in range(11))
"""Shares of the perturbed end; one half has to be among them."""

HALF = MIXES.index(0.5)

STRETCHES = {"first_half": (0, HALF), "second_half": (HALF, -1), "whole": (0, -1)}
"""From where to where on the way each figure looks, as places in `MIXES`."""

STEPS = 20


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


@dataclass(frozen=True)
class Gap:
    """By how much more the adversarial images that a model withstands change its logits than those
    that break it.

    `figure` is a field of `Change`, `difference` its mean over the defended less that over the
    broken samples, and `interval` the 95 % interval of that; None where a group has no sample, or
    fewer than two.
    """

    figure: str
    difference: float | None
    interval: tuple[float, float] | None

    @property
    def claim(self) -> Literal["supports", "contradicts", "cannot tell"]:
        """What this says of the paper's claim that samples on which attacks succeed show the
        smaller change."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "cannot tell"
        return "supports" if self.interval[0] > 0 else "contradicts"


@dataclass(frozen=True)
class Perception:
    """The changes for "adversarial" and "random" perturbations, of "broken" and "defended" samples.

    `n` counts all images; both groups are of those that the model gets right as they are. `gaps`:
    between the groups, for the adversarial perturbations.
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
        """Plain builtins, ready for JSON."""
        return {
            "threat": asdict(self.threat),
            "attack": f"pgd-{self.steps}",
            "n": self.n,
            "mix": list(MIXES),
            "changes": [
                {**asdict(change), "curve": list(change.curve), "accuracy": list(change.accuracy)}
                for change in self.changes
            ],
            "gaps": [
                {**asdict(gap), "interval": gap.interval and list(gap.interval), "claim": gap.claim}
                for gap in self.gaps
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Perception":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            threat=Threat(**values["threat"]),
            steps=int(values["attack"].removeprefix("pgd-")),
            n=values["n"],
            changes=tuple(
                Change(
                    **{**each, "curve": tuple(each["curve"]), "accuracy": tuple(each["accuracy"])}
                )
                for each in values["changes"]
            ),
            gaps=tuple(
                Gap(
                    each["figure"], each["difference"], each["interval"] and tuple(each["interval"])
                )
                for each in values["gaps"]
            ),
        )


def perceive(
    model: nn.Module,
    x: Tensor,
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

    Samples that the model gets wrong as they are belong to neither group. The model and all
    generators stay as they were. Raises `DataError` without images, `RpatError` for a model without
    finite logits (B, classes).
    """
    if not len(x):
        raise DataError("there is no image to look at.")
    device = device or x.device
    attacks = {
        "adversarial": ATTACKS["pgd"](threat, steps=steps),
        "random": ATTACKS["noise"](threat),
    }
    walks: dict[str, list[Tensor]] = {kind: [] for kind in attacks}
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        for x_part, y_part in batches(x, y, batch_size, device):
            for kind, attack in attacks.items():
                walks[kind].append(_walk(model, x_part, attack(model, x_part, y_part)).cpu())
    return analyse_walks(
        {kind: torch.cat(parts, dim=1) for kind, parts in walks.items()}, y.cpu(), threat, steps
    )


def analyse_walks(walks: Mapping[str, Tensor], y: Tensor, threat: Threat, steps: int) -> Perception:
    """`walks`: logits (mixes, N, classes) along `MIXES`, for "adversarial" and "random"
    perturbations."""
    clean, end = (walks["adversarial"][at].argmax(dim=1) == y for at in (0, -1))
    groups = {"broken": clean & ~end, "defended": clean & end}
    changes = tuple(
        _change(kind, group, logits[:, chosen], y[chosen])
        for kind, logits in walks.items()
        for group, chosen in groups.items()
    )
    adversarial = walks["adversarial"]
    gaps = tuple(
        _gap(
            figure,
            *(
                _distances(adversarial[a], adversarial[b])[groups[group]]
                for group in ("defended", "broken")
            ),
        )
        for figure, (a, b) in STRETCHES.items()
    )
    return Perception(threat, steps, len(y), changes, gaps)


def _walk(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    """(mixes, B, classes) logits on the way from x to x_adv."""
    return torch.stack([checked_logits(model, (1 - mix) * x + mix * x_adv) for mix in MIXES])


def _change(kind: str, group: str, logits: Tensor, y: Tensor) -> Change:
    n = len(y)
    if not n:
        return Change(kind, group, 0, None, None, None, (), ())
    curve, accuracy = [], []
    for at in logits:
        curve.append(float(_distances(logits[0], at).mean()))
        accuracy.append(Accuracy.of(at.argmax(dim=1) == y).value)
    figures = {
        figure: float(_distances(logits[a], logits[b]).mean())
        for figure, (a, b) in STRETCHES.items()
    }
    return Change(kind, group, n, **figures, curve=tuple(curve), accuracy=tuple(accuracy))


def _gap(figure: str, defended: Tensor, broken: Tensor) -> Gap:
    difference = float(defended.mean() - broken.mean()) if len(defended) and len(broken) else None
    return Gap(figure, difference, welch_interval(defended, broken))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(N,) mean squared differences of logits (N, classes)."""
    return (a.double() - b.double()).square().mean(dim=1)
