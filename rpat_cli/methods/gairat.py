"""Geometry-aware instance-reweighted adversarial training: Zhang et al., ICLR 2021, arXiv
2010.01736."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.losses import hard_labels
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs

BurnIn = Annotated[
    float, Field(ge=0, le=1, description="share of the training in which all images weigh the same")
]


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ_i ω_i l_i / Σ_i ω_i of (B,) losses; the plain mean where all weights are 0."""
    total = weights.sum()
    weights = torch.where(total > 0, weights, torch.ones_like(weights))
    return (weights * losses).sum() / weights.sum()


@dataclass(frozen=True)
class Gairat(Needs):
    """Σ_i ω_i CE(f(x'_i), y_i) / Σ_i ω_i with ω_i = (1 + tanh(shift + 5 (1 - 2 κ_i))) / 2.

    κ_i is the share of the attack's steps at whose start the model was still right about image i:
    the geometry value over the number of steps. Images near the boundary weigh more. In the first
    `burn_in` of the training ω is 1. x' as PGD-AT's, the sums over the images of one part of a
    batch on one rank.
    """

    needs_class = True  # it counts misclassifications
    inner_loss = watches_steps = True

    shift: Annotated[
        float, Field(description="lambda of the paper; the larger, the more alike the weights")
    ] = -1.0
    burn_in: BurnIn = 0.5

    def __call__(self, step: StepContext) -> Outcome:
        y = hard_labels(step.y)
        right: list[Tensor] = []

        def counted(logits: Tensor) -> Tensor:
            right.append(logits.argmax(dim=1) == y)
            return F.cross_entropy(logits, step.y, reduction="none")

        x_adv = step.attack.perturb(step.model, step.x, counted)
        logits_adv = step.model(x_adv)
        losses = F.cross_entropy(full_precision(logits_adv), step.y, reduction="none")
        weights = torch.ones_like(losses)
        if right and step.progress >= self.burn_in:
            kappa = torch.stack(right).to(losses.dtype).mean(dim=0)
            # (1 + tanh z) / 2, without the digits that it loses where it is small.
            weights = torch.sigmoid(2 * (self.shift + 5 * (1 - 2 * kappa)))
        return Outcome({"ce": weighted_mean(losses, weights)}, step.x, x_adv, logits_adv)
