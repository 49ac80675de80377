"""Robust soft label adversarial distillation: Zi et al., "Revisiting Adversarial Robustness
Distillation: Robust Soft Labels Make Student Better", ICCV 2021, arXiv 2108.07969."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Frozen, Needs, Network, attack_settings
from rpat_cli.methods.losses import kl_per_sample, probabilities


@dataclass(frozen=True)
class Rslad(Needs):
    """scale · [adv_weight · D(x') + clean_weight · D(x)] with D(z) = mean over B × classes of
    q (log(q + 1e-5) - log p(z)): a robust teacher's prediction q on x is the only label.

    x' maximizes KL(q ‖ softmax f(x')) from a start of 0.001 N(0, 1). D is the batch-mean KL over
    the number of classes, as the published code has it (which for CIFAR-100 takes scale 10). One
    forward pass of the teacher, two in train mode, x' first.
    """

    inner_loss = True
    attack_defaults = attack_settings(start="gaussian")

    teacher: Annotated[
        str,
        Field(
            description="run or checkpoint of a robust network, whose predictions are the labels"
        ),
    ] = ""
    adv_weight: Annotated[float, Field(ge=0, description="weight of the term on x'")] = 5 / 6
    clean_weight: Annotated[float, Field(ge=0, description="weight of the term on x")] = 1 / 6
    scale: Annotated[float, Field(gt=0, description="what both terms are multiplied by")] = 1.0

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"teacher": Frozen(self.teacher)}

    def __call__(self, step: StepContext) -> Outcome:
        target = forward(step.networks["teacher"], step.x)
        x_adv = step.attack.perturb(
            step.model, step.x, lambda logits: kl_per_sample(target, logits)
        )
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        q = probabilities(target)
        terms = {
            "adv": self.scale * self.adv_weight * distance(q, logits_adv),
            "clean": self.scale * self.clean_weight * distance(q, logits),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)


def distance(q: Tensor, logits: Tensor) -> Tensor:
    """Mean over B × classes of q (log(q + 1e-5) - log softmax of the logits)."""
    return (q * ((q + 1e-5).log() - F.log_softmax(full_precision(logits), dim=1))).mean()
