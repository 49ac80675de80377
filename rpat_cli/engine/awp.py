"""Adversarial weight perturbation: Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust
Generalization", NeurIPS 2020, arXiv 2004.05884. The loss and its gradient are computed where a
small step of the weights has made the loss worse."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack, LossFn
from rpat_cli.methods.base import StepContext
from rpat_cli.registry import SETTINGS_OF_ENTRIES


@dataclass(frozen=True)
class WeightPerturbation:
    """w ← w + gamma ‖w‖ g/‖g‖ for every weight tensor of two or more dimensions (biases and
    BatchNorm stay as they are), where g is the gradient of the whole loss: one ascent step, on the
    adversarial examples that the loss is then computed on.

    With `parameters: all` and `statistics: first` it is the form of ADR (arXiv 2305.12118).
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    gamma: Annotated[
        float,
        Field(ge=0, description="length of the perturbation, relative to each layer's weights"),
    ] = 0.005
    start_epoch: Annotated[int, Field(ge=0, description="epochs before weights are perturbed")] = 0
    parameters: Annotated[
        Literal["weights", "all"],
        Field(description="what is perturbed: weights of layers, or BatchNorm and biases, too"),
    ] = "weights"
    statistics: Annotated[
        Literal["perturbed", "first"],
        Field(description="the pass that moves BatchNorm's statistics: at which weights it is"),
    ] = "perturbed"

    @contextmanager
    def worst_weights(
        self,
        step: StepContext,
        loss_of: Callable[[StepContext], Tensor],
        mean: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda gradients: gradients,
    ) -> Iterator[StepContext]:
        """Inside, the weights are perturbed, and the step that is yielded replays the adversarial
        examples already made. `mean` makes the gradient of the whole batch of that of a slice.

        On leaving, the weights are restored bit for bit. One of the two passes moves BatchNorm's
        running statistics (`statistics`); what the attack itself changed in them stays.
        """
        if self.gamma == 0 or step.epoch < self.start_epoch:
            yield step
            return
        attack = _Recorder(step.attack, step.model)
        least = 2 if self.parameters == "weights" else 0
        weights = [p for p in step.model.parameters() if p.requires_grad and p.ndim >= least]
        gradients = mean(
            torch.autograd.grad(
                loss_of(replace(step, attack=attack)), weights, materialize_grads=True
            )
        )
        if self.statistics == "perturbed":
            attack.restore_buffers()
        else:
            attack.keep_buffers()
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                length = self.gamma * weight.norm() / (gradient.norm() + 1e-12)
                # A gradient that is not finite moves nothing: the loop finds it in the loss
                # that follows, before BatchNorm's statistics are lost to it.
                weight.add_((length * gradient).nan_to_num(0, 0, 0))
        del gradients
        try:
            yield replace(step, attack=attack.replay())
        finally:
            with torch.no_grad():
                for weight, before in zip(weights, kept, strict=True):
                    weight.copy_(before)
            if self.statistics == "first":
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
