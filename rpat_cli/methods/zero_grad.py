"""ZeroGrad: Golgooni et al., "ZeroGrad: Mitigating and Explaining Catastrophic Overfitting in FGSM
Adversarial Training", 2021, arXiv 2103.15476."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision, input_gradient
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.start import first_delta
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings


@dataclass(frozen=True)
class ZeroGrad(Needs):
    """CE(f(x'), y) with one step from a uniform start, in which the pixels of an image that have
    the smallest gradients stay where the start has put them: the share `quantile` of all.

    FGSM-RS but for that and the step, 2 eps, as in the published code: BatchNorm in train mode
    throughout, two forward and two backward passes a step.
    """

    own_examples: ClassVar[bool] = True
    attack_defaults = attack_settings(steps=1, step_per_eps=2.0, bn_mode="train")

    quantile: Annotated[
        float, Field(ge=0, lt=1, description="share of the pixels whose gradient counts as 0")
    ] = 0.35

    def __call__(self, step: StepContext) -> Outcome:
        attack = step.attack
        assert isinstance(attack, PGD)  # the recipe allows no other: `own_examples`
        start = attack.threat.apply(step.x, first_delta(attack.threat, attack.start, step.x))
        with attack_mode(step.model, attack.bn_mode) as model:
            gradient, *_ = input_gradient(
                model, start, lambda logits: F.cross_entropy(logits, step.y, reduction="sum")
            )
        direction = attack.threat.geometry.step(without_smallest(gradient, self.quantile), start)
        x_adv = attack.threat.apply(step.x, start - step.x + attack.step_size * direction)
        logits_adv = step.model(x_adv)
        ce = F.cross_entropy(full_precision(logits_adv), step.y)
        return Outcome({"ce": ce}, step.x, x_adv, logits_adv)


def without_smallest(gradient: Tensor, quantile: float) -> Tensor:
    """The gradient (B, ...), 0 where its size is below that quantile of its image's sizes."""
    size = gradient.flatten(1).abs()
    least = size.sort(dim=1).values[:, [int(quantile * size.shape[1])]]
    return torch.where(size < least, 0.0 * size, gradient.flatten(1)).view_as(gradient)
