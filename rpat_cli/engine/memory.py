"""What a method remembers: tensors from step to step, and of every training image."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Memory:
    """`state` are whole tensors by name, such as a table of classes; `images` tensors of one row
    per training image, (N, C, H, W) in float32, zeros at first.

    An image's row is found by its index in the training set, in whatever order it is visited.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
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
    def remember(
        self, index: Tensor, state: Mapping[str, Tensor], rows: Mapping[str, Tensor]
    ) -> None:
        """Take in the new values that a step returned, of the images `index` (B,)."""
        for name, value in state.items():
            self.state[name] = value.detach().to(self.state[name])
        for name, values in rows.items():
            self.images[name][index] = values.detach().to(self.images[name])

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(self.state), "images": dict(self.images)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for own, given in ((self.state, saved["state"]), (self.images, saved["images"])):
            for name in own:
                own[name] = given[name].to(own[name])
