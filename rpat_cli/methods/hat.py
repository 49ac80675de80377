"""Helper-based adversarial training: Rade & Moosavi-Dezfooli, "Reducing Excessive Margin to Achieve
a Better Accuracy vs. Robustness Trade-off", ICLR 2022."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Frozen, Needs, Network, attack_settings
from rpat_cli.methods.losses import kl
from rpat_cli.methods.trades import kl_adversary


@dataclass(frozen=True)
class Hat(Needs):
    """CE(f(x), y) + beta · KL(softmax f(x) ‖ softmax f(x')) + gamma · CE(f(x_h), y_h).

    The helper image x_h = x + h (x' - x) lies beyond x' and is not clipped; its label y_h is what a
    network of standard training, the helper, says of x'. x' as in TRADES. With robust_loss `ce`
    the second term is beta · CE(f(x'), y), and x' maximizes the cross-entropy. Three forward passes
    in train mode in the order x, x', x_h, and one of the helper.
    """

    leaves_ball: ClassVar[bool] = True
    inner_loss = True
    attack_defaults = attack_settings(start="gaussian")

    helper: Annotated[
        str, Field(description="run or checkpoint of standard training, which labels x'")
    ] = ""
    beta: Annotated[float, Field(ge=0, description="weight of the robust term")] = 2.5
    gamma: Annotated[float, Field(ge=0, description="weight of the helper term")] = 0.5
    h: Annotated[float, Field(ge=1, description="where the helper image lies: x + h (x' - x)")] = (
        2.0
    )
    robust_loss: Annotated[
        Literal["kl", "ce"], Field(description="the robust term: KL to f(x), or cross-entropy")
    ] = "kl"

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"helper": Frozen(self.helper)}

    def __call__(self, step: StepContext) -> Outcome:
        if self.robust_loss == "kl":
            x_adv = kl_adversary(step)
        else:
            x_adv = step.attack(step.model, step.x, step.y)
        y_helper = forward(step.networks["helper"], x_adv).argmax(dim=1)
        x_helper = step.x + self.h * (x_adv - step.x)
        logits, logits_adv = step.model(step.x), step.model(x_adv)
        if self.robust_loss == "kl":
            robust = kl(logits, logits_adv)
        else:
            robust = F.cross_entropy(full_precision(logits_adv), step.y)
        helper = F.cross_entropy(full_precision(step.model(x_helper)), y_helper)
        terms = {
            "ce": F.cross_entropy(full_precision(logits), step.y),
            "hat": self.beta * robust,
            "helper": self.gamma * helper,
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
