"""Interpolated adversarial training: Lamb et al., "Interpolated Adversarial Training: Achieving
Robust Neural Networks without Sacrificing Too Much Accuracy", AISec 2019, arXiv 1906.06784."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import full_precision
from rpat_cli.data.mixing import MixUp
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import label_probabilities


@dataclass(frozen=True)
class Iat(Needs):
    """½ CE(f(mix(x)), mix(y)) + ½ CE(f(mix(x')), mix(y)), where mix is MixUp: s z_i + (1 - s) z_j
    with a random partner j and s ~ Beta(alpha, alpha) for each image, the same here for x, x', y.

    x' maximizes CE from a uniform start, BatchNorm in eval mode. Two passes in train mode, mix(x)
    first. A mix of x' is within eps of the mix of x.
    """

    alpha: Annotated[
        float, Field(gt=0, le=1e6, description="both parameters of the Beta distribution of s")
    ] = 1.0

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        # Row i of the shares says how much of each image is in the i-th mix.
        alone = torch.eye(len(step.x), dtype=step.x.dtype, device=step.x.device)
        both, shares = MixUp(self.alpha)(torch.cat([step.x, x_adv]), alone, views=2)
        mixed, mixed_adv = both.chunk(2)
        logits, logits_adv = step.model(mixed), step.model(mixed_adv)
        target = shares @ label_probabilities(step.y, shares.new_empty(0, logits.shape[1]))
        terms = {
            "clean": 0.5 * F.cross_entropy(full_precision(logits), target),
            "adv": 0.5 * F.cross_entropy(full_precision(logits_adv), target),
        }
        return Outcome(terms, mixed, mixed_adv, logits_adv, logits)
