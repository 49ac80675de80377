"""Annealing self-distillation rectification: Wu, Wang & Chen, "Annealing Self-Distillation
Rectification Improves Adversarial Training", ICLR 2024, arXiv 2305.12118."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.attacks.losses import hard_labels
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Averaged, Needs, Network, attack_settings
from rpat_cli.methods.losses import kl, label_probabilities, probabilities
from rpat_cli.methods.trades import kl_adversary

Temperature = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Adr(Needs):
    """CE(f(x'), y_soft), and x' maximizes the same: the labels are rectified by an average of the
    model, q = softmax(f_t(x)/T_t).

    y_soft = w q + (1 - w) onehot(y) with w = clip(λ_t - (max_k q_k - q_y), 0, 1): the teacher
    counts less where it is wrong. T_t falls from `temperature_high` to `temperature_low`, λ_t rises
    from `interpolation_low` to `interpolation_high`, by half a cosine over all steps. With `base:
    trades` the loss is CE(f(x), y_soft) + beta · KL(softmax f(x) ‖ softmax f(x')), x and x' in one
    pass of 2B, and x' maximizes the KL from 0.001 U(0, 1). BatchNorm in train mode throughout. One
    forward pass of the teacher (EMA of decay 0.995, all buffers included), one in train mode.
    """

    needs_class: ClassVar[bool] = True
    inner_loss = True
    attack_defaults = attack_settings(bn_mode="train")

    base: Annotated[Literal["pgd", "trades"], Field(description="the method it rectifies")] = "pgd"
    beta: Annotated[float, Field(ge=0, description="weight of the KL term of TRADES")] = 6.0
    temperature_low: Annotated[
        Temperature, Field(description="temperature of the teacher at the end")
    ] = 2.0
    temperature_high: Annotated[
        Temperature, Field(description="temperature of the teacher at the start")
    ] = 2.5
    interpolation_low: Annotated[
        Share, Field(description="the teacher's largest share in the labels, at the start")
    ] = 0.7
    interpolation_high: Annotated[
        Share, Field(description="the teacher's largest share in the labels, at the end")
    ] = 0.95
    decay: Annotated[
        float, Field(ge=0, lt=1, description="decay of the teacher's EMA, per step")
    ] = 0.995

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"teacher": Averaged(self.decay)}

    def rectified(self, step: StepContext) -> Tensor:
        """(B, classes) y_soft."""
        temperature = annealed(self.temperature_high, self.temperature_low, step.progress)
        share = annealed(self.interpolation_low, self.interpolation_high, step.progress)
        q = probabilities(forward(step.networks["teacher"], step.x) / temperature)
        confidence_in_y = q.gather(1, hard_labels(step.y)[:, None]).squeeze(1)
        w = (share - (q.amax(dim=1) - confidence_in_y)).clamp(0, 1)[:, None]
        return w * q + (1 - w) * label_probabilities(step.y, q)

    def __call__(self, step: StepContext) -> Outcome:
        y_soft = self.rectified(step)
        if self.base == "trades":
            return self._trades(step, y_soft)
        x_adv = step.attack(step.model, step.x, y_soft)
        logits_adv = step.model(x_adv)
        ce = F.cross_entropy(full_precision(logits_adv), y_soft)
        return Outcome({"ce": ce}, step.x, x_adv, logits_adv)

    def _trades(self, step: StepContext, y_soft: Tensor) -> Outcome:
        x_adv = kl_adversary(step)
        logits, logits_adv = step.model(torch.cat([step.x, x_adv])).chunk(2)
        terms = {
            "ce": F.cross_entropy(full_precision(logits), y_soft),
            "trades": self.beta * kl(logits, logits_adv),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)


def annealed(start: float, end: float, progress: float) -> float:
    """From start to end by half a cosine."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))
