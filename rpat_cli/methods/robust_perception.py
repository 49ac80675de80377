"""Robust perception (RPAT): Yanyun Wang and Li Liu, "Failure Cases Are Better Learned But Boundary
Says Sorry: Facilitating Smooth Perception Change for Accuracy-Robustness Trade-Off in Adversarial
Training", ICCV 2025, arXiv 2508.02186."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from rpat_cli.attacks.forward import forward
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import cosine_distance, kl, mse

Form = Literal["mse", "paper", "kl", "cosine", "teacher-kl"]

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "kl": kl,
    "cosine": cosine_distance,
}


@dataclass(frozen=True)
class RobustPerception(Needs):
    """The logits should change evenly from x to x': halfway between the images, halfway between
    the logits.

    With x_mix = (1 - mix) x + mix x' (`mix` is the share of the adversarial end), by form:

    mse (RPAT): weight · MSE(f(x_mix), (1 - mix) f(x) + mix f(x')), the mean over B × classes, with
        gradients through all three passes. The paper divides the two differences f(x_mix) - f(x)
        and f(x') - f(x_mix) by their shares, which at mix 0.5 makes the same loss 16 times larger;
        the scale here is the one of the published experiments.
    paper: as the paper prints it, weight · MSE((f(x_mix) - f(x)) / mix, (f(x') - f(x_mix)) / (1 -
        mix)): mse over (mix (1 - mix))². Defined for 0 < mix < 1.
    kl, cosine: the same two points compared by KL(softmax of the mixed logits ‖ softmax f(x_mix)),
        or by 1 - cosine.
    teacher-kl (RPAT++): weight · KL(softmax[f_wa(x_mix) - (1 - mix) f_wa(x)] (no grad)
        ‖ softmax[mix · f(x')]). It replaces ReBAT's teacher term and takes its beta; on any other
        method it is an additional term.

    With weight 0, before epoch `start_epoch` (from 0), and in teacher-kl before averaging has
    started, there is no term and no forward pass, which would move BatchNorm's running statistics.
    """

    weight: Annotated[float, Field(ge=0, description="weight of the robust perception term")] = 1.0
    mix: Annotated[
        float, Field(ge=0, le=1, description="share of the adversarial end in the mixed image")
    ] = 0.5
    start_epoch: Annotated[int, Field(ge=0, description="epochs before the term begins")] = 0
    form: Annotated[Form, Field(description="how the mixed image's logits are compared")] = "mse"

    def __post_init__(self) -> None:
        if self.form == "paper" and self.mix in (0, 1):
            raise ValueError("the form 'paper' divides by mix and by 1 - mix: use 0 < mix < 1")

    @property
    def needs_teacher(self) -> bool:
        return self.form == "teacher-kl"

    @property
    def replaces_teacher_term(self) -> bool:
        return self.form == "teacher-kl"

    def __call__(self, step: StepContext, outcome: Outcome) -> dict[str, Tensor]:
        """`{"ra": weighted scalar}`, or nothing where there is no term; reuses the passes that
        `outcome` holds."""
        if self.weight == 0 or step.epoch < self.start_epoch:
            return {}
        x_mix = (1 - self.mix) * outcome.x + self.mix * outcome.x_adv
        if self.form != "teacher-kl":
            return {"ra": self.weight * self._between_logits(step, outcome, x_mix)}
        if step.teacher is None:
            return {}
        return {"ra": self.weight * self._against_teacher(step.teacher, outcome, x_mix)}

    def _between_logits(self, step: StepContext, outcome: Outcome, x_mix: Tensor) -> Tensor:
        logits = step.model(outcome.x) if outcome.logits is None else outcome.logits
        even = (1 - self.mix) * logits + self.mix * outcome.logits_adv
        logits_mix = step.model(x_mix)
        if self.form == "paper":
            # The two slopes differ by (f(x_mix) - even) / (mix (1 - mix)).
            return mse(even, logits_mix) / (self.mix * (1 - self.mix)) ** 2
        return COMPARISONS[self.form](even, logits_mix)

    def _against_teacher(self, teacher: nn.Module, outcome: Outcome, x_mix: Tensor) -> Tensor:
        change = forward(teacher, x_mix) - (1 - self.mix) * forward(teacher, outcome.x)
        return kl(change, self.mix * outcome.logits_adv)
