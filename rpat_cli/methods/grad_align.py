"""GradAlign: Andriushchenko & Flammarion, "Understanding and Improving Fast Adversarial Training",
NeurIPS 2020, arXiv 2007.02617."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.geometry import largest_to_one
from rpat_cli.attacks.pgd import PGD
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings


@dataclass(frozen=True)
class GradAlign(Needs):
    """CE(f(x'), y) + weight · mean_i [1 - cos(∇l(x_i) *(no grad)*, ∇l(x_i + η_i))] with
    l = CE(f(·), y); images where one of them is 0 don't count.

    x' is one step of eps from x along ∇l(x), and η is uniform in the ball. Three forward and three
    backward passes in train mode, x, x', x + η, the last one differentiated once more. Gradients
    flow through ∇l(x + η) alone as in the published code. The paper's weight is 0.2 for CIFAR-10 in
    Linf at 8/255, and smaller for smaller eps.
    """

    own_examples: ClassVar[bool] = True
    attack_defaults = attack_settings(steps=1, step_per_eps=1.0, start="zero", bn_mode="train")

    weight: Annotated[
        float, Field(ge=0, description="weight of the angle between input gradients")
    ] = 0.2

    def __call__(self, step: StepContext) -> Outcome:
        attack = step.attack
        assert isinstance(attack, PGD)  # the recipe allows no other: `own_examples`
        threat = attack.threat
        here = loss_gradient(step, step.x, differentiable=False)
        direction = threat.geometry.step(here, step.x)
        x_adv = threat.apply(step.x, attack.step_size * direction)
        logits_adv = step.model(x_adv)
        eta = threat.geometry.random(step.x, threat.eps)
        beside = loss_gradient(step, step.x + eta, differentiable=True)
        terms = {
            "ce": F.cross_entropy(full_precision(logits_adv), step.y),
            "align": self.weight * angle(here.flatten(1), beside.flatten(1)),
        }
        return Outcome(terms, step.x, x_adv, logits_adv)


def loss_gradient(step: StepContext, at: Tensor, *, differentiable: bool) -> Tensor:
    """Each image's gradient of its cross-entropy, shaped like x."""
    at = at.detach().requires_grad_()
    loss = F.cross_entropy(full_precision(step.model(at)), step.y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, at, create_graph=differentiable)
    return gradient


def angle(here: Tensor, beside: Tensor) -> Tensor:
    """Mean of 1 - cosine over the rows (B, d) that are not 0 on either side."""
    given = (here != 0).any(dim=1) & (beside != 0).any(dim=1)
    # Only these: the gradient of a norm of 0 is none. At one size: tiny norms count as 1e-8 there.
    cosine = F.cosine_similarity(largest_to_one(here[given]), largest_to_one(beside[given]), dim=1)
    return (1 - cosine).sum() / max(1, len(cosine))
