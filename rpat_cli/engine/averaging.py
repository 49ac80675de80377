"""Weight averaging: an EMA of the trained model's weights, as a second model.

Izmailov et al., UAI 2018, arXiv 1803.05407; as EMA in adversarial training: Gowal et al. 2020,
arXiv 2010.03593; as the teacher of ReBAT: Wang et al., NeurIPS 2023, arXiv 2310.19360.

The EMA itself is torch's. Why not all of `torch.optim.swa_utils.AveragedModel`: its first update
copies the model instead of averaging, with `use_buffers` it averages BatchNorm's integer counters
too, and its state dict has other names than the checkpoints of earlier versions.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rpat_cli.registry import SETTINGS_OF_ENTRIES


@dataclass(frozen=True)
class WeightAveraging:
    """The settings. `start_epoch` counts from 0; None means ReBAT's 105 of 200 epochs, in
    proportion."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    decay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="decay of the EMA per step; 0.999 suits long trainings",
        ),
    ] = 0.999
    start_epoch: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="epochs before averaging; a plain copy until then"),
    ] = None

    def start_at(self, epochs: int) -> int:
        """The epoch (from 0) in which averaging starts, in a training of so many epochs."""
        return epochs * 105 // 200 if self.start_epoch is None else self.start_epoch

    def of(self, model: nn.Module, epochs: int) -> "AveragedModel":
        """The average, which begins as a copy of `model` on its device."""
        return AveragedModel(model, self.decay, self.start_at(epochs))


class AveragedModel:
    """Parameters and BatchNorm statistics, averaged over steps:
    average = decay · average + (1 - decay) · model.

    `model` is in eval mode and takes no gradients. Before epoch `start_epoch` it is a copy of the
    trained model. Integer buffers, which are counters, are always copied.
    """

    def __init__(self, model: nn.Module, decay: float, start_epoch: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.start_epoch = start_epoch
        self._ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def has_started(self, epoch: int) -> bool:
        """Whether epoch `epoch` (from 0) averages."""
        return epoch >= self.start_epoch

    def teacher(self, epoch: int) -> nn.Module | None:
        """The averaged model, or None before averaging has started."""
        return self.model if self.has_started(epoch) else None

    @torch.no_grad()
    def update(self, model: nn.Module, epoch: int) -> None:
        """Follow the weights of `model` after a step of epoch `epoch` (from 0)."""
        current = model.state_dict()
        averaged, followed = [], []
        for name, average in self.model.state_dict().items():
            if self.has_started(epoch) and average.is_floating_point():
                averaged.append(average)
                followed.append(current[name])
            else:
                average.copy_(current[name])
        if averaged:
            # All tensors in one call: on a GPU one kernel instead of one for each.
            self._ema(averaged, followed, 0)  # the number of updates so far plays no role in an EMA

    def state_dict(self) -> dict[str, Any]:
        return dict(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
