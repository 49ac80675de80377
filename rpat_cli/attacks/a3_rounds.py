"""The rounds of A3 (Liu et al., CVPR 2022, arXiv 2203.05154), and where their starts aim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the catalogue reads the rounds without paying for torch
    from torch import Tensor

BIASED_SHARE = 0.05
"""If the random directions of round 1 have broken this share of its images, they are biased: what
they have found is followed, and no image is left out."""


@dataclass(frozen=True)
class Round:
    """`fraction` of the images that are left, `adi` steps in a direction of the logits and `steps`
    on the margin, from each of `restarts` starts."""

    fraction: float
    steps: int
    adi: int = 7
    restarts: int = 1
    is_final: bool = False


def _limit(fraction: float, limit: int, adi: int = 7, restarts: int = 1, **more: bool) -> Round:
    """In the paper's numbers. The published program takes `limit + adi` steps on the margin, after
    those of the direction."""
    return Round(fraction, limit + adi, adi, restarts, **more)


FIRST = (Round(1.0, 8, adi=0), _limit(1.0, 8), _limit(1.0, 8))

DISCARDING = (
    _limit(0.7, 25),
    _limit(0.6, 30),
    _limit(0.5, 30),
    _limit(0.4, 35),
    _limit(0.3, 40),
    _limit(0.2, 45),
    _limit(0.1, 50),
    _limit(0.1, 50, restarts=4, is_final=True),
    _limit(0.065, 55, restarts=4, is_final=True),
    _limit(0.03, 60, restarts=50, is_final=True),
)

FOLLOWING = (
    _limit(1.0, 5, 10, restarts=10),
    _limit(1.0, 5, 15),
    _limit(1.0, 10, 15),
    _limit(1.0, 10, 10),
    _limit(1.0, 15, 10),
    _limit(1.0, 18, 10),
    _limit(1.0, 20, 10),
    _limit(0.8, 25, 10, restarts=5),
    _limit(0.5, 35, 10, restarts=5, is_final=True),
    _limit(0.5, 45, 10, restarts=20, is_final=True),
)

MANY_CLASSES, LONGER = 1000, 10


def rounds_of(biased: bool, classes: int) -> tuple[Round, ...]:
    """All 13 rounds. As many classes as ImageNet has take longer descents and a restart more."""
    later: tuple[Round, ...] = FOLLOWING if biased else DISCARDING
    if classes >= MANY_CLASSES:
        later = tuple(
            Round(each.fraction, each.steps + LONGER, each.adi, each.restarts + 1, each.is_final)
            for each in later
        )
    return FIRST + later


def is_biased(share: float) -> bool:
    """Do the random directions of round 1, which broke this share of its images, show the way?"""
    return share >= BIASED_SHARE


def targets_of(classes: int) -> int:
    """How many classes the starts aim at in turn."""
    if classes <= 10:
        return classes - 1
    return 14 if classes <= 100 else 20


@dataclass(frozen=True)
class Aim:
    """Two entries of a direction, in place of random ones: that of the class to aim at, one of
    `targets` in turn, the likeliest first, and that of the true class."""

    target: float
    own: float
    targets: int

    @classmethod
    def drawn(cls, classes: int, toward: float, own: float, u: float) -> Aim:
        """By the signs of what has broken images so far: the summed entries of the classes that
        they fell `toward`, and of their `own` class. `u` is U(0, 1), one for a batch."""
        scale = classes / 10
        if toward > 0 and own > 0:
            return cls(0.8 * scale, scale * _between(-0.1, 0.5, u), targets_of(classes))
        if toward < 0 < own:
            return cls(-0.8 * scale, scale * _between(-0.1, 0.5, u), targets_of(classes))
        if toward < 0 and own < 0:
            return cls(-0.8 * scale, scale * _between(-0.5, 0.1, u), targets_of(classes))
        return cls(0.8 * scale, scale * _between(-0.5, 0.1, u), targets_of(classes))

    def applied(self, w: Tensor, order: Tensor, y: Tensor, counter: int) -> Tensor:
        """Directions (M, K) with the two entries set, for classes `order` (M, K) in ascending order
        of their logits and true classes `y` (M,). `counter` counts the restarts."""
        rank = counter % self.targets
        others = order[order != y[:, None]].view(len(order), -1)
        w = w.scatter(1, others[:, others.shape[1] - 1 - rank, None], self.target)
        return w.scatter(1, y[:, None], self.own)


def final_aim(classes: int, biased: bool, u: float) -> Aim:
    """Of the last rounds: the four likeliest classes where there are few."""
    scale = classes / 10
    targets = min(4, classes - 1) if classes <= 10 else targets_of(classes)
    return Aim(0.8 * scale, 0.0 if biased else scale * _between(-0.8, 0.1, u), targets)


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u
