"""Margin-aware instance reweighting: Wang et al., "Probabilistic Margins for Instance Reweighting
in Adversarial Training", NeurIPS 2021, arXiv 2106.07904."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.losses import margin
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.gairat import BurnIn, weighted_mean
from rpat_cli.methods.losses import kl_per_sample, probabilities
from rpat_cli.methods.trades import kl_adversary

Slope = Annotated[float, Field(ge=0, description="how steeply the weights fall with the margin")]
Bias = Annotated[float, Field(description="the margin of half the weight")]
FIVE_OF_EIGHT = 75 / 120
"""The published trainings weigh all images alike in the first 75 of 120 epochs."""


def margin_weights(
    step: StepContext, logits_adv: Tensor, slope: float, bias: float, burn_in: float
) -> Tensor:
    """(B,) sigmoid(-slope (PM - bias)) without a gradient, PM = p_y(x') - max_{k≠y} p_k(x'); 1 in
    the first `burn_in` of the training."""
    margins = margin(probabilities(logits_adv.detach()), step.y)
    if step.progress < burn_in:
        return torch.ones_like(margins)
    return torch.sigmoid(-slope * (margins - bias))


@dataclass(frozen=True)
class Mail(Needs):
    """MAIL-AT: Σ_i ω_i CE(f(x'_i), y_i) / Σ_i ω_i, ω = sigmoid(-slope (PM - bias)) *(no grad)*,
    PM = p_y(x') - max_{k≠y} p_k(x') the probabilistic margin.

    x' as PGD-AT's from 0.001 N(0, 1). In the first `burn_in` of the training ω is 1. The sums are
    over the images of one part of a batch on one rank, and the weights are normalized as in the
    paper; the published code multiplies them by 3 instead.
    """

    needs_class = True
    attack_defaults = attack_settings(start="gaussian")

    slope: Slope = 10.0
    bias: Bias = -0.5
    burn_in: BurnIn = FIVE_OF_EIGHT

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        logits_adv = step.model(x_adv)
        losses = F.cross_entropy(full_precision(logits_adv), step.y, reduction="none")
        weights = margin_weights(step, logits_adv, self.slope, self.bias, self.burn_in)
        return Outcome({"ce": weighted_mean(losses, weights)}, step.x, x_adv, logits_adv)


@dataclass(frozen=True)
class MailTrades(Needs):
    """MAIL-TRADES: CE(f(x), y) + beta · Σ_i ω_i KL(p(x_i) ‖ p(x'_i)) / Σ_i ω_i, ω as in `Mail`.

    x' as in TRADES. Two passes in train mode, x first.
    """

    needs_class = True
    inner_loss = True
    attack_defaults = attack_settings(start="gaussian")

    beta: Annotated[float, Field(ge=0, description="weight of the robust term")] = 5.0
    slope: Slope = 2.0
    bias: Bias = 0.0
    burn_in: BurnIn = FIVE_OF_EIGHT

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = kl_adversary(step)
        logits, logits_adv = step.model(step.x), step.model(x_adv)
        weights = margin_weights(step, logits_adv, self.slope, self.bias, self.burn_in)
        terms = {
            "ce": F.cross_entropy(full_precision(logits), step.y),
            "trades": self.beta * weighted_mean(kl_per_sample(logits, logits_adv), weights),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
