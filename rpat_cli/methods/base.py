"""What a training method sees and returns. A method is a frozen dataclass: fields =
hyper-parameters, call = maths."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from rpat_cli.attacks.base import Attack


@dataclass(frozen=True)
class StepContext:
    """All that a method may look at in one training step.

    `x` is (B, C, H, W) with pixels in [0, 1] and `y` is (B,) int64; with two views `x` is [view1;
    view2] and `y` stands twice. `epoch` counts from 0. `teacher` is the weight-averaged model, in
    eval mode, for those who ask for one. `lr_ratio` is the largest learning rate of the schedule
    over the current one (>= 1).
    """

    model: nn.Module
    attack: Attack
    x: Tensor
    y: Tensor
    epoch: int = 0
    teacher: nn.Module | None = None
    lr_ratio: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """Weighted scalar loss terms by name (their sum is the loss), and the passes that regularizers
    may share.

    `logits_adv` belongs to `x_adv`, `logits` to the clean `x` where the method computed it anyway.
    """

    terms: dict[str, Tensor]
    x: Tensor
    x_adv: Tensor
    logits_adv: Tensor
    logits: Tensor | None = None


class Method(Protocol):
    """A training method: one step's context in, named loss terms out."""

    def __call__(self, step: StepContext) -> Outcome: ...


class Regularizer(Protocol):
    """An extra loss that any method can carry: reuses the method's passes, returns named, weighted
    terms."""

    def __call__(self, step: StepContext, outcome: Outcome) -> dict[str, Tensor]: ...
