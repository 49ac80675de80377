"""Adversarial logit pairing: Kannan, Kurakin & Goodfellow, 2018, arXiv 1803.06373."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import mse


@dataclass(frozen=True)
class Alp(Needs):
    """½ CE(f(x), y) + ½ CE(f(x'), y) + weight · MSE(f(x), f(x')), the mean over B × classes,
    gradients through both.

    x' maximizes CE from a uniform start, BatchNorm in eval mode; x and x' are one batch of the pass
    in train mode, x first. The published trainings smooth labels by 0.1 and attack towards the
    least likely class instead.
    """

    weight: Annotated[
        float, Field(ge=0, description="weight of the squared distance of the logits of x and x'")
    ] = 0.5

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        logits, logits_adv = step.model(torch.cat([step.x, x_adv])).chunk(2)
        terms = {
            "clean": 0.5 * F.cross_entropy(full_precision(logits), step.y),
            "adv": 0.5 * F.cross_entropy(full_precision(logits_adv), step.y),
            "pairing": self.weight * mse(logits, logits_adv),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
