"""Adversarially robust distillation: Goldblum et al., AAAI 2020, arXiv 1905.09747."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Frozen, Needs, Network
from rpat_cli.methods.losses import kl


@dataclass(frozen=True)
class Ard(Needs):
    """(1 - alpha) · CE(f(x), y) + alpha · T² · KL(softmax(t(x)/T) ‖ softmax(f(x')/T)), t a robust
    teacher: its prediction on x is what the student is to say on x'.

    x' maximizes CE(f(x'), y) from a uniform start, BatchNorm in eval mode. One forward pass of the
    teacher, one in train mode on x', and with alpha < 1 one on x before it.
    """

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
        logits = step.model(step.x) if self.alpha < 1 else None
        logits_adv = step.model(x_adv)
        softened = (full_precision(each) / self.temperature for each in (target, logits_adv))
        terms = {"ard": self.alpha * self.temperature**2 * kl(*softened)}
        if logits is not None:
            terms["ce"] = (1 - self.alpha) * F.cross_entropy(full_precision(logits), step.y)
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
