"""What an attack or a training step costs: forward and backward passes, counted at the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Passes:
    """Passes through a model: whole batches, and samples (batches times their size)."""

    forward: int = 0
    backward: int = 0
    forward_samples: int = 0
    backward_samples: int = 0


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Count the forward and backward passes of `model` inside the `with` block.

    A backward pass is a gradient that arrives at the model's output. A hook on that tensor works
    for `backward`, `autograd.grad` and several passes through one graph alike, and changes nothing;
    a module's backward hook would wrap inputs and outputs, and fail on in-place operations.
    """
    passes = Passes()

    def seen_gradient(gradient: Tensor) -> None:
        passes.backward += 1
        passes.backward_samples += len(gradient)

    def seen_output(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            passes.forward += 1
            passes.forward_samples += len(output)
            if output.requires_grad:
                output.register_hook(seen_gradient)  # type: ignore[no-untyped-call]

    handle = model.register_forward_hook(seen_output)
    try:
        yield passes
    finally:
        handle.remove()
