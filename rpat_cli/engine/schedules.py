"""Learning-rate schedules: frozen dataclasses that map a point of the training to a factor of the
peak learning rate.

`epoch` is a real number from 0 to `epochs`: at step s of n in epoch e it is e + s/n. A schedule
that changes once per epoch rounds it down. Importing this module does not import torch.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import AfterValidator, ConfigDict, Field

from rpat_cli.registry import SETTINGS_OF_ENTRIES, Registry
from rpat_cli.text import Number

Per = Annotated[
    Literal["step", "epoch"],
    Field(description="when the learning rate changes: at every step, or at every epoch"),
]
Milestones = tuple[Number, ...] | None


class Schedule(Protocol):
    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor, in [0, 1], of the peak learning rate."""
        ...


def _point(epoch: float, per: str) -> float:
    return epoch if per == "step" else math.floor(epoch)


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
    milestones: Annotated[
        Milestones,
        Field(
            description=(
                "epochs after which the learning rate drops (default: 100 and 105 of 110, in "
                "proportion; from 200 epochs on at 50 % and 75 %)"
            )
        ),
    ] = None
    gamma: Annotated[
        Number, Field(gt=0, le=1, description="factor of the learning rate at each milestone")
    ] = 0.1

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
    factor: Annotated[
        Number, Field(ge=1, description="what the learning rate is divided by at each milestone")
    ] = 1.5
    milestones: Annotated[
        Milestones,
        Field(
            description=(
                "epochs after which the learning rate drops (default: 50 % and 75 % of the "
                "training)"
            )
        ),
    ] = None

    def __call__(self, epoch: float, epochs: int) -> float:
        milestones = (0.5 * epochs, 0.75 * epochs) if self.milestones is None else self.milestones
        return self.factor ** -sum(epoch >= milestone for milestone in milestones)


@dataclass(frozen=True)
class Linear:
    """Linearly down to `end` times the peak learning rate."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    end: Annotated[
        Number,
        Field(
            ge=0,
            le=1,
            description="learning rate at the end, as a multiple of the peak learning rate",
        ),
    ] = 0.0
    per: Per = "step"

    def __call__(self, epoch: float, epochs: int) -> float:
        return 1 - (1 - self.end) * _point(epoch, self.per) / epochs


@dataclass(frozen=True)
class Cosine:
    """Half a cosine down to 0 (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    per: Per = "step"

    def __call__(self, epoch: float, epochs: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * _point(epoch, self.per) / epochs))


@dataclass(frozen=True)
class OneCycle:
    """Up from `initial` until `peak` (a fraction of the training), then down to `final` (Smith &
    Topin 2018, arXiv 1708.07120): in straight lines, as in FGSM-RS, or in half cosines.

    `shape: cosine, initial: 1/25, final: 4e-6` is torch's OneCycleLR: over all steps (HAT), or with
    `per: epoch` stepped once an epoch (SCORE, and Wang et al., ICML 2023, arXiv 2302.04638).
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    peak: Annotated[
        Number,
        Field(gt=0, lt=1, description="share of the training after which the peak is reached"),
    ] = 0.4
    shape: Annotated[
        Literal["linear", "cosine"],
        Field(description="shape of the way up and of the way down: straight, or half a cosine"),
    ] = "linear"
    initial: Annotated[
        Number,
        Field(ge=0, lt=1, description="learning rate at the start, as a multiple of the peak"),
    ] = 0.0
    final: Annotated[
        Number,
        Field(ge=0, lt=1, description="learning rate at the end, as a multiple of the peak"),
    ] = 0.0
    per: Per = "step"

    def __call__(self, epoch: float, epochs: int) -> float:
        share, lowest = self._climbed(epoch, epochs)
        return lowest + (1 - lowest) * share

    def climbed(self, epoch: float, epochs: int) -> float:
        """How far up the rate is between its lowest and its peak: the momentum is as far down."""
        return self._climbed(epoch, epochs)[0]

    def _climbed(self, epoch: float, epochs: int) -> tuple[float, float]:
        """How far up, and the lowest factor on this side of the peak."""
        done, peak = epoch / epochs, self.peak
        if self.per == "epoch":
            # Between its n steps torch takes n - 1 ways, the first of which ends at peak n - 1.
            ways = max(1, epochs - 1)
            done, peak = math.floor(epoch) / ways, (self.peak * epochs - 1) / ways
        rising = done < peak
        share = done / peak if rising else (1 - done) / (1 - peak)
        if self.shape == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return share, self.initial if rising else self.final


def _in_order(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    epochs = [epoch for epoch, _ in points]
    if not points or epochs != sorted(epochs):
        raise ValueError("must be at least one pair of epoch and factor, in order of the epochs")
    return points


@dataclass(frozen=True)
class Points:
    """Straight lines between pairs of epoch and factor, which stays before the first and after the
    last; two pairs of one epoch are a jump. For what no formula gives, such as NuAT's (arXiv
    2110.01677) cycle that ends in two drops, or LBGAT's first epoch at a fifth of the rate."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES
    points: Annotated[
        tuple[tuple[Number, Annotated[Number, Field(ge=0, le=1)]], ...],
        AfterValidator(_in_order),
        Field(description="pairs of an epoch and the factor of the peak learning rate there"),
    ] = ((0.0, 1.0),)

    def __call__(self, epoch: float, epochs: int) -> float:  # noqa: ARG002
        before = [point for point in self.points if point[0] <= epoch]
        after = [point for point in self.points if point[0] > epoch]
        if not before or not after:
            return before[-1][1] if before else after[0][1]
        (left, low), (right, high) = before[-1], after[0]
        return low + (high - low) * (epoch - left) / (right - left)


SCHEDULES: Registry[type[Schedule]] = Registry(
    "schedule",
    {
        "multistep": MultiStep,
        "piecewise": Piecewise,
        "cosine": Cosine,
        "linear": Linear,
        "one-cycle": OneCycle,
        "points": Points,
        "constant": Constant,
    },
)


def learning_rate(
    lr: float, schedule: Schedule, epoch: float, epochs: int, warmup_epochs: float = 0.0
) -> float:
    """The learning rate at a point of the training, with linear warm-up; `lr` is the peak rate."""
    warmup = min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0
    return lr * warmup * schedule(epoch, epochs)


def momentum_at(
    momentum: tuple[float, float], schedule: Schedule, epoch: float, epochs: int
) -> float:
    """The momentum (lowest, highest) at a point of the training: highest where the rate is lowest.

    So torch's CyclicLR (0.8, 0.9) and OneCycleLR (0.85, 0.95) change it unless told not to, and
    with them published results.
    """
    lowest, highest = momentum
    climbed = getattr(schedule, "climbed", schedule)
    return highest - (highest - lowest) * float(climbed(epoch, epochs))
