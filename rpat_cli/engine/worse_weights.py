"""Losses taken where a small step of the weights has made them worse: what AWP and SAM share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack, LossFn
from rpat_cli.methods.base import StepContext

LossOf = Callable[[StepContext], Tensor]

Mean = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""From the gradient of a slice of the batch to that of the whole."""

Ascent = Callable[[Sequence[Tensor], Sequence[Tensor]], Iterable[Tensor]]
"""From weights and the gradient of the loss to what is added to each of the weights."""

Statistics = Literal["perturbed", "first"]
"""Which of the two passes moves BatchNorm's statistics: at the perturbed weights, or before."""


class WorseWeights(Protocol):
    """A collaborator that takes the loss of a step at worse weights."""

    def worst_weights(
        self, step: StepContext, loss_of: LossOf, mean: Mean = ...
    ) -> AbstractContextManager[StepContext]:
        """Inside, the loss is to be taken: see `perturbed`."""
        ...


@contextmanager
def perturbed(
    step: StepContext,
    weights: Sequence[nn.Parameter],
    ascent: Ascent,
    loss_of: LossOf,
    mean: Mean,
    statistics: Statistics,
) -> Iterator[StepContext]:
    """Inside, `ascent` is added to the weights, and the step that is yielded replays the
    adversarial examples already made. `mean` makes the gradient of the whole batch of that of a
    slice.

    On leaving, the weights are restored bit for bit. One of the two passes moves BatchNorm's
    running statistics (`statistics`); what the attack itself changed in them stays.
    """
    attack = _Recorder(step.attack, step.model)
    loss = loss_of(replace(step, attack=attack))
    gradients = mean(torch.autograd.grad(loss, weights, materialize_grads=True))
    if statistics == "perturbed":
        attack.restore_buffers()
    else:
        attack.keep_buffers()
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, move in zip(weights, ascent(weights, gradients), strict=True):
            # A gradient that is not finite moves nothing: the loop finds it in the loss that
            # follows, before BatchNorm's statistics are lost to it.
            weight.add_(move.nan_to_num(0, 0, 0))
    del loss, gradients
    try:
        yield replace(step, attack=attack.replay())
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
        if statistics == "first":
            attack.restore_buffers()


class _Recorder:
    """An attack that records the examples it made, and the model's buffers as they were after
    it."""

    def __init__(self, attack: Attack, model: nn.Module) -> None:
        self.attack = attack
        self.buffers = list(model.buffers())
        self.made: list[Tensor] = []
        self.keep_buffers()

    def __getattr__(self, name: str) -> Any:
        """Settings of the attack, such as its mode."""
        return getattr(self.attack, name)

    def keep_buffers(self) -> None:
        self.kept = [buffer.clone() for buffer in self.buffers]

    def _note(self, x_adv: Tensor) -> Tensor:
        self.made.append(x_adv)
        self.keep_buffers()
        return x_adv

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self._note(self.attack(model, x, y))

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        return self._note(self.attack.perturb(model, x, loss_fn, start=start))

    @torch.no_grad()
    def restore_buffers(self) -> None:
        for buffer, before in zip(self.buffers, self.kept, strict=True):
            buffer.copy_(before)

    def replay(self) -> "_Replay":
        return _Replay(self.attack, iter(self.made))


class _Replay:
    """An attack that returns recorded examples, in order, without a pass of the model."""

    def __init__(self, attack: Attack, made: Iterator[Tensor]) -> None:
        self.attack = attack
        self.made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attack, name)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        return next(self.made)

    def perturb(
        self,
        model: nn.Module,  # noqa: ARG002
        x: Tensor,  # noqa: ARG002
        loss_fn: LossFn,  # noqa: ARG002
        *,
        start: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        return next(self.made)
