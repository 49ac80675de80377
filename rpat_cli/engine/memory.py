"""What a method remembers: tensors from step to step, and of every training image."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from rpat_cli.engine.distributed import Ranks
from rpat_cli.methods.base import Outcome


class Memory:
    """`state` are whole tensors by name, such as a table of classes; `images` tensors of one row
    per training image, (N, C, H, W) in float32, zeros at first.

    An image's row is found by its index in the training set, in whatever order it is visited.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor] = MappingProxyType({}),
        names: tuple[str, ...] = (),
        count: int = 0,
        shape: tuple[int, ...] = (),
        device: torch.device | None = None,
    ) -> None:
        self.state = {name: value.to(device) for name, value in state.items()}
        self.images = {name: torch.zeros(count, *shape, device=device) for name in names}

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """What is remembered of the images `index` (B,): tensors of B rows by name."""
        return {name: every[index] for name, every in self.images.items()}

    @torch.no_grad()
    def remember(self, index: Tensor, outcome: Outcome, ranks: Ranks, weight: float) -> None:
        """Take in what a step returned of the images `index` (B,); of several ranks, the rows of
        all, and the mean of their states, where this one has `weight`."""
        means = ranks.mean([value.detach() for value in outcome.state.values()], weight)
        for name, value in zip(outcome.state, means, strict=True):
            self.state[name] = value.to(self.state[name])
        if not outcome.memory:
            return
        own = (index, {name: values.detach() for name, values in outcome.memory.items()})
        for at, rows in [own] if ranks.size == 1 else ranks.from_all(_on_cpu(own)):
            for name, values in rows.items():
                self.images[name][at] = values.to(self.images[name])

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(self.state), "images": dict(self.images)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for own, given in ((self.state, saved["state"]), (self.images, saved["images"])):
            for name in own:
                own[name] = given[name].to(own[name])


def _on_cpu(rows: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    index, values = rows
    return index.cpu(), {name: value.cpu() for name, value in values.items()}
