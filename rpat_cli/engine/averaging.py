"""Weight averaging (EMA): a second model that follows the trained one slowly. Izmailov et al., UAI
2018, arXiv 1803.05407; as an exponential moving average in adversarial training: Gowal et al. 2020,
arXiv 2010.03593; as the teacher of ReBAT: Wang et al., NeurIPS 2023, arXiv 2310.19360."""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import nn


@dataclass(frozen=True)
class WeightAveraging:
    """Settings. `start_epoch` counts from 0; None means ReBAT's 105 of 200, in proportion to the
    epochs."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    decay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="share of the average that one step keeps; 0.999 suits long training",
        ),
    ] = 0.999
    start_epoch: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="epochs before averaging; a plain copy until then"),
    ] = None

    def start_at(self, epochs: int) -> int:
        """The epoch (from 0) at which averaging starts in a training of `epochs` epochs. By default
        it is always one of them."""
        return epochs * 105 // 200 if self.start_epoch is None else self.start_epoch

    def of(self, model: nn.Module, epochs: int) -> "AveragedModel":
        """The average that begins as a copy of `model`, on its device."""
        return AveragedModel(model, self.decay, self.start_at(epochs))


class AveragedModel:
    """Parameters and BatchNorm statistics averaged over steps: average ← decay · average + (1 -
    decay) · model.

    `model` is in eval mode and needs no gradients. Before epoch `start_epoch` it is a plain copy.
    Counters (integer buffers) are always copied.

    Not `torch.optim.swa_utils.AveragedModel`: that one averages counters as well, or else copies
    BatchNorm's statistics, and renames every key of the state dict.
    """

    def __init__(self, model: nn.Module, decay: float, start_epoch: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.start_epoch = start_epoch

    def has_started(self, epoch: int) -> bool:
        """Is the model averaged in epoch `epoch` (from 0)?"""
        return epoch >= self.start_epoch

    def teacher(self, epoch: int) -> nn.Module | None:
        """The averaged model, or None before averaging has started."""
        return self.model if self.has_started(epoch) else None

    @torch.no_grad()
    def update(self, model: nn.Module, epoch: int) -> None:
        """Update the average with the weights after one step of epoch `epoch` (from 0)."""
        averages, currents = self.model.state_dict(), model.state_dict()
        for name, average in averages.items():
            if self.has_started(epoch) and average.is_floating_point():
                average.lerp_(currents[name], 1 - self.decay)
            else:
                average.copy_(currents[name])

    def state_dict(self) -> dict[str, Any]:
        return dict(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
