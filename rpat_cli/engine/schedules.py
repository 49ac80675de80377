"""Learning-rate schedules: frozen dataclasses that map a point of the training to a factor of the
peak learning rate.

`epoch` is a real number from 0 to `epochs`: at step s of n in epoch e it is e + s/n. A schedule
that changes once per epoch rounds it down. Importing this module does not import torch.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from pydantic import ConfigDict, Field

from rpat_cli.registry import SETTINGS_OF_ENTRIES, Registry
from rpat_cli.text import Number

Milestones = Annotated[tuple[Number, ...], Field(description="epochs at which the rate drops")]


class Schedule(Protocol):
    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor, in [0, 1], of the peak learning rate."""
        ...


@dataclass(frozen=True)
class Constant:
    """The peak learning rate throughout."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    def __call__(self, epoch: float, epochs: int) -> float:  # noqa: ARG002  (all schedules share this signature)
        return 1.0


@dataclass(frozen=True)
class MultiStep:
    """Times `gamma` at each milestone, per epoch.

    Without milestones: at epochs 100 and 105 of 110, in proportion for other lengths below 200, and
    at 50 % and 75 % from 200 epochs on, as in the benchmarks of RPAT (Wang & Liu, ICCV 2025, arXiv
    2508.02186).
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    milestones: Milestones | None = None
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.1

    def __call__(self, epoch: float, epochs: int) -> float:
        shares = (0.5, 0.75) if epochs >= 200 else (100 / 110, 105 / 110)
        milestones = self.milestones
        if milestones is None:
            milestones = tuple(round(share * epochs) for share in shares)
        passed = sum(math.floor(epoch) >= milestone for milestone in milestones)
        return self.gamma**passed


@dataclass(frozen=True)
class Piecewise:
    """Divided by `factor` at each milestone, per step; without milestones at 50 % and 75 % (ReBAT,
    Wang et al., NeurIPS 2023, arXiv 2310.19360)."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    factor: Annotated[Number, Field(ge=1)] = 1.5
    milestones: Milestones | None = None

    def __call__(self, epoch: float, epochs: int) -> float:
        milestones = (0.5 * epochs, 0.75 * epochs) if self.milestones is None else self.milestones
        return self.factor ** -sum(epoch >= milestone for milestone in milestones)


@dataclass(frozen=True)
class Linear:
    """Linearly down to `end` times the peak learning rate, per step."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    end: Annotated[Number, Field(ge=0, le=1)] = 0.0

    def __call__(self, epoch: float, epochs: int) -> float:
        return 1 - (1 - self.end) * epoch / epochs


@dataclass(frozen=True)
class Cosine:
    """Half a cosine down to 0, per step (Loshchilov & Hutter 2017, arXiv 1608.03983, without
    restarts)."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    def __call__(self, epoch: float, epochs: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


@dataclass(frozen=True)
class OneCycle:
    """Linearly up until `peak` (a fraction of the training), then linearly down to 0, per step
    (Smith & Topin 2018, arXiv 1708.07120)."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.4

    def __call__(self, epoch: float, epochs: int) -> float:
        done = epoch / epochs
        return done / self.peak if done < self.peak else (1 - done) / (1 - self.peak)


SCHEDULES: Registry[type[Schedule]] = Registry(
    "schedule",
    {
        "multistep": MultiStep,
        "piecewise": Piecewise,
        "cosine": Cosine,
        "linear": Linear,
        "one-cycle": OneCycle,
        "constant": Constant,
    },
)


def learning_rate(
    lr: float, schedule: Schedule, epoch: float, epochs: int, warmup_epochs: float = 0.0
) -> float:
    """The learning rate at a point of the training, with linear warm-up; `lr` is the peak rate."""
    warmup = min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0
    return lr * warmup * schedule(epoch, epochs)
