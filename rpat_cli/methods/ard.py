"""Adversarially robust distillation: Goldblum et al., AAAI 2020, arXiv 1905.09747."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Frozen, Needs, Network, attack_settings
from rpat_cli.methods.losses import kl


@dataclass(frozen=True)
class Ard(Needs):
    """(1 - alpha) · CE(f(x), y) + alpha · T² · KL(softmax(t(x)/T) ‖ softmax(f(x')/T)) / classes, t
    a robust teacher: its prediction on x is what the student is to say on x'.

    x' maximizes CE(f(x'), y) from a uniform start, BatchNorm in train mode, its running statistics
    moving. One forward pass of the teacher, two in train mode, x' first; that on x also where alpha
    is 1, for the statistics. Mode, order and the division by the classes are those of the published
    code.
    """

    attack_defaults = attack_settings(bn_mode="train")

    teacher: Annotated[
        str, Field(description="run or checkpoint of a robust network, whose predictions teach")
    ] = ""
    alpha: Annotated[
        float, Field(ge=0, le=1, description="share of the teacher; the rest is the label's, on x")
    ] = 1.0
    temperature: Annotated[float, Field(gt=0, description="what both logits are divided by, T")] = (
        30.0
    )

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"teacher": Frozen(self.teacher)}

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        target = forward(step.networks["teacher"], step.x)
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        softened = (full_precision(each) / self.temperature for each in (target, logits_adv))
        scale = self.alpha * self.temperature**2 / logits.shape[1]
        terms = {"ard": scale * kl(*softened)}
        if self.alpha < 1:
            terms["ce"] = (1 - self.alpha) * F.cross_entropy(full_precision(logits), step.y)
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
