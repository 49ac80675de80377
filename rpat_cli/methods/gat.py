"""Guided adversarial training: Sriramanan et al., "Guided Adversarial Attack for Evaluating and
Enhancing Adversarial Defenses", NeurIPS 2020, arXiv 2011.14969."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import probabilities, squared_distance

SINGLE_STEP_FROM_SIGNS = attack_settings(steps=1, step_per_eps=1.0, start="sign", start_scale=0.5)
"""One step of eps from ±eps/2 in every pixel, BatchNorm in eval mode: GAT's and NuAT's."""


@dataclass(frozen=True)
class Gat(Needs):
    """ce_weight · CE(f(x), y) + beta · mean Σ_k (p_k(x) - p_k(x'))², p = softmax f.

    x' maximizes CE(f(x0), y), in every second step (odd ones, counted from 0 in the epoch) with
    the guidance beta · mean Σ_k (p_k(x) (no grad) - p_k(x0))² added. beta is multiplied by
    `late_factor` in the last 15 % of the epochs. Four forward and three backward passes a step.
    """

    inner_loss = True
    attack_defaults = SINGLE_STEP_FROM_SIGNS

    beta: Annotated[
        float, Field(ge=0, description="weight of the squared distance of predictions")
    ] = 10.0
    ce_weight: Annotated[float, Field(ge=0, description="weight of the cross-entropy on x")] = 1.0
    late_factor: Annotated[
        float, Field(ge=0, description="what beta is multiplied by in the last 15 % of the epochs")
    ] = 4.0

    def __call__(self, step: StepContext) -> Outcome:
        late = step.epoch >= round(0.85 * step.epochs)
        beta = self.beta * (self.late_factor if late else 1.0)
        guide = probabilities(forward(step.model, step.x))

        def guided(logits: Tensor) -> Tensor:
            ce = F.cross_entropy(logits, step.y)
            if step.step % 2 == 0:
                return ce
            return ce + beta * squared_distance(guide, probabilities(logits)).mean()

        x_adv = step.attack.perturb(step.model, step.x, guided)
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        distance = squared_distance(probabilities(logits), probabilities(logits_adv)).mean()
        terms = {
            "ce": self.ce_weight * F.cross_entropy(full_precision(logits), step.y),
            "gat": beta * distance,
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
