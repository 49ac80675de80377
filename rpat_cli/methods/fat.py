"""Friendly adversarial training: Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial
Learning Stronger", ICML 2020, arXiv 2002.11242."""

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

TAU_RISES_AT = (5 / 12, 9 / 12)
"""By one each time: after epochs 50 and 90 of 120, as published."""


@dataclass(frozen=True)
class Fat(Needs):
    """CE(f(x'), y) with x' by early-stopped PGD: an image stays where it is once the model has been
    wrong about it at the start of tau + 1 steps.

    tau is 0 at first, and rises to `tau` by one a time. PGD with a uniform start, BatchNorm in eval
    mode; a stopped image has no gradient any more, and a step along a gradient of 0 leads nowhere.
    The published code adds 0.001 N(0, 1) to every step, too.
    """

    needs_class = True  # it counts misclassifications
    inner_loss = watches_steps = True

    tau: Annotated[
        int, Field(ge=0, le=2, description="steps beyond the boundary, at the end of the training")
    ] = 2

    def __call__(self, step: StepContext) -> Outcome:
        y = hard_labels(step.y)
        wrong = torch.zeros_like(y)
        tau = min(self.tau, sum(step.progress >= share for share in TAU_RISES_AT))

        def until_wrong(logits: Tensor) -> Tensor:
            wrong.add_(logits.argmax(dim=1) != y)
            losses = F.cross_entropy(logits, step.y, reduction="none")
            return torch.where(wrong > tau, 0.0 * losses, losses)

        x_adv = step.attack.perturb(step.model, step.x, until_wrong)
        logits_adv = step.model(x_adv)
        ce = F.cross_entropy(full_precision(logits_adv), step.y)
        return Outcome({"ce": ce}, step.x, x_adv, logits_adv)
