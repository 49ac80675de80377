"""Weight averaging: an EMA of the trained model's weights, as a second model.

Izmailov et al., UAI 2018, arXiv 1803.05407; as EMA in adversarial training: Gowal et al. 2020,
arXiv 2010.03593; as the teacher of ReBAT: Wang et al., NeurIPS 2023, arXiv 2310.19360.

The EMA itself is torch's. Why not all of `torch.optim.swa_utils.AveragedModel`: its first update
copies the model instead of averaging, with `use_buffers` it averages BatchNorm's integer counters
too, and its state dict has other names than the checkpoints of earlier versions.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rpat_cli.registry import SETTINGS_OF_ENTRIES

UPDATES = "number of updates"
"""Next to the weights in a state dict; no weight can have a name with spaces."""

Form = Literal["ema", "warm-ema", "swa"]


def decay_at(form: Form, decay: float, done: float) -> float:
    """The share of the average that is kept by an update, after `done` updates since the start.

    ema: `decay`. warm-ema: min(decay, (1 + done) / (10 + done)), so that the average is not held
    back by the weights it began with (Gowal et al. 2020, arXiv 2010.03593, and the code of Wang et
    al., ICML 2023, arXiv 2302.04638). swa: done / (done + 1), the mean of all weights since.
    """
    if form == "swa":
        return done / (done + 1)
    return min(decay, (1 + done) / (10 + done)) if form == "warm-ema" else decay


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
    form: Annotated[
        Form,
        Field(
            description=(
                "ema: constant decay; warm-ema: the decay rises to it after the start; swa: equal "
                "weights"
            )
        ),
    ] = "ema"
    buffers: Annotated[
        Literal["average", "model"],
        Field(description="BatchNorm's statistics: averaged too, or the trained model's own"),
    ] = "average"
    start_epoch: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="epochs before averaging (default: 105 of 200, in proportion)"),
    ] = None

    def start_at(self, epochs: int) -> int:
        """The epoch (from 0) in which averaging starts, in a training of so many epochs."""
        return epochs * 105 // 200 if self.start_epoch is None else self.start_epoch

    def of(self, model: nn.Module, epochs: int) -> "AveragedModel":
        """The average, which begins as a copy of `model` on its device."""
        return AveragedModel(
            model, self.decay, self.start_at(epochs), form=self.form, buffers=self.buffers
        )


class AveragedModel:
    """Parameters and BatchNorm statistics, averaged over steps:
    average = decay · average + (1 - decay) · model.

    `model` is in eval mode and takes no gradients. Before epoch `start_epoch` it is a copy of the
    trained model. Integer buffers, which are counters, are always copied.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        start_epoch: int,
        *,
        form: Form = "ema",
        buffers: Literal["average", "model"] = "average",
    ) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.start_epoch = start_epoch
        self.form = form
        self.updates = 0
        own = buffers == "model"
        self._copied = {name for name, _ in model.named_buffers()} if own else set()

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
            is_averaged = average.is_floating_point() and name not in self._copied
            if self.has_started(epoch) and is_averaged:
                averaged.append(average)
                followed.append(current[name])
            else:
                average.copy_(current[name])
        if averaged:
            # All tensors in one call: on a GPU one kernel instead of one for each.
            decay = decay_at(self.form, self.decay, self.updates)
            # The 0 is a number of updates, which plays no role in torch's EMA.
            get_ema_multi_avg_fn(decay)(averaged, followed, 0)  # type: ignore[no-untyped-call]
            self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {**self.model.state_dict(), UPDATES: torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; earlier versions did not count the updates."""
        weights = {name: value for name, value in state.items() if name != UPDATES}
        self.model.load_state_dict(weights)
        self.updates = int(state.get(UPDATES, 0))
