"""Standard training: the baseline without an attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from rpat_cli.attacks.forward import full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs


@dataclass(frozen=True)
class Standard(Needs):
    """CE(f(x), y). No attack runs: x_adv is x, so that a regularizer sees one and the same
    image."""

    uses_attack: ClassVar[bool] = False

    def __call__(self, step: StepContext) -> Outcome:
        logits = step.model(step.x)
        return Outcome(
            {"ce": F.cross_entropy(full_precision(logits), step.y)},
            step.x,
            step.x,
            logits_adv=logits,
            logits=logits,
        )
