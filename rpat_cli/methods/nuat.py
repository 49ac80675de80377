"""Nuclear-norm adversarial training: Sriramanan et al., "Towards Efficient and Effective
Adversarial Training", NeurIPS 2021."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Averaged, Needs, Network
from rpat_cli.methods.gat import SINGLE_STEP_FROM_SIGNS

Beta = Annotated[float, Field(ge=0, description="weight of the nuclear norm, at its largest")]
CeWeight = Annotated[float, Field(ge=0, description="weight of the cross-entropy on x")]
Divisor = Annotated[
    Annotated[int, Field(ge=1)] | None,
    Field(description="what the nuclear norm is divided by (default: the number of images)"),
]
ATTACK_DECAY = 0.99
"""Of the average that NuAT2-WA attacks."""


def nuclear_norm(logits_1: Tensor, logits_2: Tensor) -> Tensor:
    """The sum of the singular values of the (B, classes) differences."""
    difference = full_precision(logits_1) - full_precision(logits_2)
    norm: Tensor = torch.linalg.matrix_norm(difference, "nuc")
    return norm


def loss_terms(
    step: StepContext, x_adv: Tensor, beta: float, ce_weight: float, batch: int
) -> Outcome:
    """ce_weight · CE(f(x), y) + beta · ‖f(x) - f(x')‖_* / batch, in train mode, x' first."""
    logits_adv, logits = step.model(x_adv), step.model(step.x)
    terms = {
        "ce": ce_weight * F.cross_entropy(full_precision(logits), step.y),
        "nuat": beta * nuclear_norm(logits, logits_adv) / batch,
    }
    return Outcome(terms, step.x, x_adv, logits_adv, logits)


@dataclass(frozen=True)
class NuAT(Needs):
    """ce_weight · CE(f(x), y) + beta · ‖f(x) - f(x')‖_* / B, with the nuclear norm of the B ×
    classes matrix of logit differences.

    x' maximizes CE(f(x0), y), in every second step (odd ones) with beta · ‖f(x) (no grad, train
    mode) - f(x0)‖_* / B added, by one step from ±eps/2. beta rises from 0 in the first epoch to its
    full value ten epochs before the last. Four forward and three backward passes a step.
    """

    inner_loss = True
    attack_defaults = SINGLE_STEP_FROM_SIGNS

    beta: Beta = 4.5
    ce_weight: CeWeight = 1.0
    divisor: Divisor = None

    def beta_at(self, step: StepContext) -> float:
        """The weight in this step's epoch."""
        rise = max(1, step.epochs - 10)
        return self.beta * min(1.0, step.epoch / rise)

    def __call__(self, step: StepContext) -> Outcome:
        beta, batch = self.beta_at(step), self.divisor or len(step.x)
        clean = forward(step.model, step.x)

        def inner(logits: Tensor) -> Tensor:
            ce = F.cross_entropy(logits, step.y)
            return ce if step.step % 2 == 0 else ce + beta * nuclear_norm(clean, logits) / batch

        x_adv = step.attack.perturb(step.model, step.x, inner)
        return loss_terms(step, x_adv, beta, self.ce_weight, batch)


@dataclass(frozen=True)
class NuAT2(Needs):
    """The loss of NuAT, with x' by two steps: the first up CE + beta · ‖f(x) (no grad) - f(x0)‖_*
    / B, the second up CE alone, BatchNorm in eval mode.

    With `averaged` the first step's gradient comes from an average of the network with decay 0.99,
    from the second epoch on (NuAT2-WA; its paper evaluates another average, of decay 0.9998:
    `wa.decay`). beta rises from 0 over all epochs. Five forward and four backward passes a step.
    """

    inner_loss = True
    attack_defaults = SINGLE_STEP_FROM_SIGNS

    beta: Beta = 4.0
    ce_weight: CeWeight = 1.0
    divisor: Divisor = None
    averaged: Annotated[
        bool, Field(description="take the attack's first step on averaged weights (NuAT2-WA)")
    ] = False

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"averaged": Averaged(ATTACK_DECAY, start_epoch=1)} if self.averaged else {}

    def __call__(self, step: StepContext) -> Outcome:
        beta, batch = self.beta * step.epoch / step.epochs, self.divisor or len(step.x)
        # As in the published code: the model's own first step divides by the images it has.
        inner_batch = batch if self.averaged else len(step.x)
        first: nn.Module = step.networks["averaged"] if self.averaged else step.model
        with attack_mode(first) as model:
            clean = forward(model, step.x)

        def ce(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, step.y)

        def with_norm(logits: Tensor) -> Tensor:
            return ce(logits) + beta * nuclear_norm(clean, logits) / inner_batch

        halfway = step.attack.perturb(first, step.x, with_norm)
        x_adv = step.attack.perturb(step.model, step.x, ce, start=halfway - step.x)
        return loss_terms(step, x_adv, beta, self.ce_weight, batch)
