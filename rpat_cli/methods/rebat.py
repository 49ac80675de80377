"""ReBAT: Wang et al., "Balance, Imbalance, and Rebalance: Understanding Robust Overfitting from a
Minimax Game Perspective", NeurIPS 2023, arXiv 2310.19360."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward
from rpat_cli.methods.base import Outcome, Regularizer, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import kl
from rpat_cli.methods.pgd import adversarial_cross_entropy


def follow_teacher(step: StepContext, outcome: Outcome) -> dict[str, Tensor]:
    """KL(softmax f_wa(x') (no grad) ‖ softmax f(x')): the weight-averaged teacher, on the same
    adversarial batch."""
    if step.teacher is None:
        return {}
    return {"teacher_kl": kl(forward(step.teacher, outcome.x_adv), outcome.logits_adv)}


BetaSchedule = Annotated[
    Literal["constant", "scheduled"],
    Field(description="constant: beta; scheduled: (peak learning rate / current one - 1) / 2"),
]


def beta_at(step: StepContext, beta: float, schedule: BetaSchedule) -> float:
    """beta_t, the weight of the teacher's term in this step."""
    return beta if schedule == "constant" else (step.lr_ratio - 1) / 2


@dataclass(frozen=True)
class Rebat(Needs):
    """CE(f(x'), y) + beta_t KL(softmax f_wa(x') ‖ softmax f(x')), the second term once averaging
    has started.

    beta_t is beta, or (peak learning rate / current one - 1) / 2. The attack runs with BatchNorm in
    train mode. `RobustPerception` in its form teacher-kl replaces the second term (RPAT++).
    """

    attack_defaults = attack_settings(bn_mode="train")
    needs_teacher = True
    ra_form = "teacher-kl"

    beta: Annotated[float, Field(ge=0, description="weight of the teacher term")] = 1.0
    beta_schedule: BetaSchedule = "constant"

    def __call__(self, step: StepContext) -> Outcome:
        return self.with_teacher_term(step)

    def with_teacher_term(self, step: StepContext, term: Regularizer | None = None) -> Outcome:
        """The same with `term` in the place of the KL to the teacher; where it has nothing to say
        in this step, the KL stays."""
        outcome = adversarial_cross_entropy(step)
        beta = beta_at(step, self.beta, self.beta_schedule)
        if step.teacher is None or beta == 0:
            return outcome
        terms = term(step, outcome) if term else {}
        weighted = {
            name: beta * value for name, value in (terms or follow_teacher(step, outcome)).items()
        }
        return replace(outcome, terms=outcome.terms | weighted)
