"""What a training method sees, returns and declares. A method is a frozen dataclass: its fields are
hyper-parameters, its call is the paper's equation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack
from rpat_cli.attacks.forward import full_precision
from rpat_cli.methods.declare import Network


@dataclass(frozen=True)
class StepContext:
    """All that a method may look at in one training step.

    `x` is (B, C, H, W) with pixels in [0, 1]; `y` is (B,) int64, or (B, classes) probabilities
    where labels are soft. With two views `x` is [view1; view2] and `y` is repeated. `epoch` counts
    from 0. `teacher` is the weight-averaged model, in eval mode, for methods that need one; None
    before averaging has started. `lr_ratio` is the peak learning rate over the current one (>= 1).

    `epochs` is the length of the training, `step` counts from 0 within the epoch, and `progress`
    in [0, 1) is the share of all steps done. `networks` are the further networks that the method
    asked for (`Needs.networks`), by name. `state` is what it remembers from step to step, whole
    tensors by name; `memory` what it remembers of these images, tensors of B rows. Both are read
    here, and what they become is returned in the `Outcome`.
    """

    model: nn.Module
    attack: Attack
    x: Tensor
    y: Tensor
    epoch: int = 0
    teacher: nn.Module | None = None
    lr_ratio: float = 1.0
    epochs: int = 1
    step: int = 0
    progress: float = 0.0
    networks: Mapping[str, nn.Module] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Weighted scalar loss terms by name (their sum is the loss), and the passes that regularizers
    may share.

    `logits_adv` (B, classes) belongs to `x_adv`; `logits` to the clean `x`, where the method
    computed it anyway. `state` and `memory` are the new values of what the method remembers (see
    `StepContext`), without gradients; what is left out stays as it was.
    """

    terms: dict[str, Tensor]
    x: Tensor
    x_adv: Tensor
    logits_adv: Tensor
    logits: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The sum of all terms, in float32 or more also under autocast."""
        return torch.stack([full_precision(term) for term in self.terms.values()]).sum()


class Part(Protocol):
    """What methods and regularizers declare alike. `rpat_cli.methods.declare.Needs` has the usual
    answers, and explains them."""

    @property
    def views(self) -> int: ...

    @property
    def needs_class(self) -> bool: ...

    @property
    def needs_teacher(self) -> bool: ...


class Method(Part, Protocol):
    """A training method: one step's context in, named loss terms out."""

    @property
    def attack_defaults(self) -> Mapping[str, Any]: ...

    @property
    def leaves_ball(self) -> bool: ...

    @property
    def own_examples(self) -> bool: ...

    @property
    def remembers(self) -> tuple[str, ...]: ...

    @property
    def networks(self) -> Mapping[str, Network]: ...

    def initial_state(self, classes: int) -> dict[str, Tensor]: ...

    def __call__(self, step: StepContext) -> Outcome: ...


class Regularizer(Part, Protocol):
    """An extra loss that any method can carry: reuses the method's passes, returns named, weighted
    terms."""

    @property
    def replaces_teacher_term(self) -> bool: ...

    def __call__(self, step: StepContext, outcome: Outcome) -> dict[str, Tensor]: ...


@runtime_checkable
class HasTeacherTerm(Protocol):
    """A method with a term that follows the teacher, which a regularizer may replace."""

    def with_teacher_term(self, step: StepContext, term: Regularizer) -> Outcome: ...
