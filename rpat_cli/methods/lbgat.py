"""Learnable boundary guided adversarial training: Cui et al., ICCV 2021, arXiv 2011.11164."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field

from rpat_cli.attacks.forward import full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, Network, TrainedAlong, attack_settings
from rpat_cli.methods.losses import kl, mse
from rpat_cli.methods.trades import kl_adversary


@dataclass(frozen=True)
class Lbgat(Needs):
    """MSE(f(x'), f_t(x)) + CE(f_t(x), y) + beta · KL(softmax f(x) ‖ softmax f(x')).

    The teacher f_t is a second network, trained along on clean images by the same optimizer; the
    MSE's gradient enters it, too. The model has no cross-entropy of its own. x' as in TRADES. Two
    forward passes in train mode, x' first, and one of the teacher.
    """

    inner_loss = True
    attack_defaults = attack_settings(start="gaussian")

    teacher: Annotated[
        str, Field(description="network of the teacher, which is trained along on clean images")
    ] = "resnet18"
    beta: Annotated[float, Field(ge=0, description="weight of the KL term; 0 is LBGAT0")] = 6.0

    @property
    def networks(self) -> Mapping[str, Network]:
        return {"teacher": TrainedAlong(self.teacher)}

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = kl_adversary(step)
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        taught = step.networks["teacher"](step.x)
        terms = {
            "mse": mse(taught, logits_adv),
            "teacher_ce": F.cross_entropy(full_precision(taught), step.y),
            "trades": self.beta * kl(logits, logits_adv),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
