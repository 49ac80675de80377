"""Adversarial vertex mixup: Lee, Lee & Yoon, "Adversarial Vertex Mixup: Toward Better Adversarially
Robust Generalization", CVPR 2020, arXiv 2003.02484."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.geometry import per_sample
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import label_probabilities

Kept = Annotated[float, Field(ge=0, le=1, description="probability that the label keeps")]


def smoothed(y: Tensor, kept: float, like: Tensor) -> Tensor:
    """(B, classes): `kept` for the label, the rest evenly for the other classes."""
    label = label_probabilities(y, full_precision(like))
    return kept * label + (1 - kept) * (1 - label) / max(1, like.shape[1] - 1)


@dataclass(frozen=True)
class AvMixup(Needs):
    """CE(f(z), s φ(y, kept_clean) + (1 - s) φ(y, kept_adv)) at z = s x + (1 - s) x_v, s ~ U(0, 1)
    for each image; φ(y, k) gives k to the label and the rest evenly to the other classes.

    x_v = box(x + gamma (x' - x)) is the adversarial vertex, outside the ball for gamma > 1, and x'
    as PGD-AT's. One pass in train mode.
    """

    leaves_ball: ClassVar[bool] = True

    gamma: Annotated[
        float, Field(ge=1, description="how far the vertex is from x, in lengths of x' - x")
    ] = 2.0
    kept_clean: Kept = 1.0
    kept_adv: Kept = 0.1

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        vertex = (step.x + self.gamma * (x_adv - step.x)).clamp(0, 1)
        share = torch.rand_like(step.x.flatten(1)[:, 0])
        at = per_sample(share, step.x)
        between = at * step.x + (1 - at) * vertex
        logits = step.model(between)
        of_clean, of_vertex = (
            smoothed(step.y, kept, logits) for kept in (self.kept_clean, self.kept_adv)
        )
        share = share[:, None]
        target = share * of_clean + (1 - share) * of_vertex
        ce = F.cross_entropy(full_precision(logits), target)
        return Outcome({"ce": ce}, step.x, between, logits)
