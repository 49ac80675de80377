"""ReBAT (Wang et al., "Balance, Imbalance, and Rebalance: Understanding Robust Overfitting from a
Minimax Game Perspective", NeurIPS 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward
from rpat_cli.methods.base import Outcome, Regulariser, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import kl
from rpat_cli.methods.pgd import adversarial_cross_entropy


def follow_teacher(step: StepContext, outcome: Outcome) -> dict[str, Tensor]:
    """KL(softmax f_wa(x') (no grad) ‖ softmax f(x')): the weight-averaged teacher, on the same
    adversarial batch."""
    if step.teacher is None:
        return {}
    return {"teacher_kl": kl(forward(step.teacher, outcome.x_adv), outcome.logits_adv)}


@dataclass(frozen=True)
class Rebat(Needs):
    """CE(f(x'), y) + beta_t KL(softmax f_wa(x') ‖ softmax f(x')), the second term once averaging
    has started.

    Until then `StepContext.teacher` is None. The attack runs with BatchNorm in train mode.
    """

    attack_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"start": "uniform", "bn_mode": "train"}
    )
    ra_form: ClassVar[str] = "teacher-kl"
    takes_guide: ClassVar[bool] = True

    beta: Annotated[float, Field(ge=0, description="weight of the teacher's term")] = 1.0
    beta_schedule: Annotated[
        Literal["constant", "scheduled"],
        Field(
            description="constant: beta; scheduled: (largest learning rate / current one - 1) / 2"
        ),
    ] = "constant"

    @property
    def needs_teacher(self) -> bool:
        return True

    def beta_at(self, step: StepContext) -> float:
        """The second term's weight in this step."""
        return self.beta if self.beta_schedule == "constant" else (step.lr_ratio - 1) / 2

    def __call__(self, step: StepContext, guide: Regulariser | None = None) -> Outcome:
        """`guide` names what to follow in place of the plain teacher; where it returns no term, the
        teacher it is."""
        outcome = adversarial_cross_entropy(step)
        beta = self.beta_at(step)
        if step.teacher is None or beta == 0:
            return outcome
        guided = (guide(step, outcome) if guide else {}) or follow_teacher(step, outcome)
        return replace(
            outcome, terms=outcome.terms | {name: beta * term for name, term in guided.items()}
        )
