"""The floor under a training step: the bare passes of its networks, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rpat_cli.engine.compute import Compute

Kind = Literal["input", "weights", "forward"]


@dataclass(frozen=True)
class Pass:
    """A pass of the network `role` on a batch of `shape`, its modules in train mode or not.

    input: forward, and backward to the images, as an attack does. weights: forward, and backward to
    the weights, as a loss does. forward: without a gradient.
    """

    role: str
    kind: Kind
    shape: tuple[int, ...]
    training: bool


@contextmanager
def recorded(networks: Mapping[str, nn.Module]) -> Iterator[list[Pass]]:
    """The passes of the networks, by role, in the order in which they happen in this block."""
    passes: list[Pass] = []

    def note(role: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kind: Kind = "weights"
        if not output.requires_grad:
            kind = "forward"
        elif inputs[0].requires_grad:
            kind = "input"
        passes.append(Pass(role, kind, tuple(inputs[0].shape), module.training))

    with ExitStack() as stack:
        for role, network in networks.items():
            hook = network.register_forward_hook(
                lambda module, inputs, output, role=role: note(role, module, inputs, output)
            )
            stack.callback(hook.remove)
        yield passes


@dataclass
class Floor:
    """Repeats recorded passes on networks of its own; a contestant."""

    name: str
    passes: Sequence[Pass]
    networks: Mapping[str, nn.Module]
    compute: Compute
    _images: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in self.passes:
            if each.shape not in self._images:
                self._images[each.shape] = torch.rand(each.shape, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.compute.device

    def run(self, steps: int) -> None:
        with self.compute.settings():
            for _ in range(steps):
                for network in self.networks.values():
                    network.zero_grad(set_to_none=True)
                for each in self.passes:
                    self._repeat(each)

    def _repeat(self, each: Pass) -> None:
        network, x = self.networks[each.role], self._images[each.shape]
        if network.training != each.training:
            network.train(each.training)
        if each.kind == "forward":
            with torch.no_grad(), self.compute.autocast():
                network(x)
            return
        x = x.detach().requires_grad_(each.kind == "input")
        with self.compute.autocast():
            total = network(x).sum()
        if each.kind == "input":
            torch.autograd.grad(total, x)
        else:
            total.backward()
