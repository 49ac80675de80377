"""Training against several norms at once: E-AT (Croce & Hein, "Adversarial Robustness against
Multiple and Single l_p-Threat Models via Quick Fine-Tuning of Robust Classifiers", ICML 2022, arXiv
2105.12508); MAX and AVG (Tramèr & Boneh, NeurIPS 2019, arXiv 1904.13000)."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.autopgd import AutoPGD
from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.attacks.losses import cross_entropy, hard_labels
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.text import Number

FIRST_SHARE = 0.05
"""Of the pixels, that AutoPGD's first step moves in L1 in training (0.2 in evaluation)."""


Linf = Annotated[
    Number, Field(ge=0, description="eps in Linf, for pixels in [0, 1]; 0: without this norm")
]
L2 = Annotated[Number, Field(ge=0, description="eps in L2 (usual: 0.5); 0: without it")]
L1 = Annotated[Number, Field(ge=0, description="eps in L1 (usual: 12); 0: without it")]


def threats_of(linf: float, l2: float, l1: float) -> list[Threat]:
    """Those with a radius above 0."""
    radii = {"Linf": linf, "L2": l2, "L1": l1}
    return [Threat(norm, eps) for norm, eps in radii.items() if eps > 0]


def strongest(step: StepContext, threat: Threat) -> tuple[Tensor, Tensor]:
    """x', the point of the highest cross-entropy that AutoPGD finds from x itself; (B,) bool: was
    the image classified right at every point on the way?"""
    classes = hard_labels(step.y)
    right = torch.ones_like(classes, dtype=torch.bool)

    def watched(logits: Tensor) -> Tensor:
        right.logical_and_(logits.detach().argmax(dim=1) == classes)
        return cross_entropy(logits, step.y)

    attack = AutoPGD(
        threat,
        getattr(step.attack, "steps", 10),
        start="zero",
        keep="loss",
        sparsity=FIRST_SHARE,
        large_radii=False,
    )
    return attack.perturb(step.model, step.x, watched), right


@dataclass(frozen=True)
class Eat(Needs):
    """CE(f(x'), y), with x' in one norm per batch: drawn by weights 1 - (robust accuracy in this
    norm during the training so far), all alike until every norm was drawn once.

    x' is the point of the highest cross-entropy on the way of AutoPGD (`attack.steps` steps, from x
    itself, eval mode). An image counts as robust that is right at every point of it. Robustness in
    L2 comes with that in Linf and L1. `attack.steps` + 1 forward passes in eval mode, one in train
    mode. On several ranks each draws for its own part of the batch.
    """

    own_examples: ClassVar[bool] = True

    linf: Linf = 8 / 255
    l2: L2 = 0.0
    l1: L1 = 12.0

    def __post_init__(self) -> None:
        check_radii(self.linf, self.l2, self.l1)

    @property
    def threats(self) -> list[Threat]:
        return threats_of(self.linf, self.l2, self.l1)

    def initial_state(self, classes: int) -> dict[str, Tensor]:  # noqa: ARG002
        count = len(self.threats)
        return {"robust": torch.zeros(count), "attacked": torch.zeros(count)}

    def __call__(self, step: StepContext) -> Outcome:
        robust, attacked = step.state["robust"].clone(), step.state["attacked"].clone()
        counts = torch.stack([robust, attacked]).cpu()  # waits for a GPU once
        weights = 1 - counts[0] / counts[1].clamp_min(1)
        if not bool((counts[1] > 0).all()) or not bool(weights.sum() > 0):
            weights = torch.ones_like(weights)
        at = int(torch.multinomial(weights, 1))
        x_adv, right = strongest(step, self.threats[at])
        robust[at] += right.sum()
        attacked[at] += len(right)
        logits_adv = step.model(x_adv)
        ce = F.cross_entropy(full_precision(logits_adv), step.y)
        state = {"robust": robust, "attacked": attacked}
        return replace(Outcome({"ce": ce}, step.x, x_adv, logits_adv), state=state)


@dataclass(frozen=True)
class MultiNorm(Needs):
    """max: CE(f(x'), y) with, for each image, the x' of the norm in which its cross-entropy is
    highest. avg: the mean of CE(f(x'), y) over the norms.

    x' as in `Eat`. max takes one forward pass more in eval mode for each norm, avg a pass in train
    mode for each.
    """

    own_examples: ClassVar[bool] = True

    linf: Linf = 8 / 255
    l2: L2 = 0.5
    l1: L1 = 12.0
    combine: Annotated[
        Literal["max", "avg"], Field(description="the worst norm of each image, or their mean")
    ] = "max"

    def __post_init__(self) -> None:
        check_radii(self.linf, self.l2, self.l1)

    def __call__(self, step: StepContext) -> Outcome:
        threats = threats_of(self.linf, self.l2, self.l1)
        made = [strongest(step, threat)[0] for threat in threats]
        if self.combine == "max":
            x_worst = _worst(step, made)
            logits_adv = step.model(x_worst)
            ce = F.cross_entropy(full_precision(logits_adv), step.y)
            return Outcome({"ce": ce}, step.x, x_worst, logits_adv)
        logits = [step.model(x_adv) for x_adv in made]
        losses = {
            f"ce_{threat.norm}": F.cross_entropy(full_precision(each), step.y) / len(threats)
            for threat, each in zip(threats, logits, strict=True)
        }
        return Outcome(losses, step.x, made[-1], logits[-1])


def _worst(step: StepContext, made: list[Tensor]) -> Tensor:
    """For each image the one of these on which its cross-entropy is highest."""
    with attack_mode(step.model) as model:
        losses = torch.stack([cross_entropy(forward(model, x), step.y) for x in made])
    return torch.stack(made)[losses.argmax(dim=0), torch.arange(len(step.x))]


def check_radii(linf: float, l2: float, l1: float) -> None:
    if not (linf or l2 or l1):
        raise ValueError("all radii are 0: give at least one of linf, l2, l1")
