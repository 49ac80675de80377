"""How far can AutoAttack be below the attacks that were run? An audit: a costly attack on a random
sample, and an exact bound on what it would break of the rest.

Cheap attacks on all N images leave S of them right. AutoAttack would break an unknown number K of
those. It attacks the first m of the S in an order of all images that a seed has fixed before
anything was measured, so the m are a random sample, and breaks k. The number of broken images in a
sample drawn without replacement is hypergeometric, so K is at most the largest number that makes
"no more than k" likelier than alpha.

The sample grows, and growing it until the result pleases would spoil the bound. So the sizes at
which the audit looks (`plan`) are fixed by S, N and the width alone, and each look has its own
share of alpha: two thirds of what the looks before have left. All bounds together then fail with
probability alpha at most, at whichever look the audit stops, and for whatever reason. Each look is
planned for a number of broken images: it is as large as it must be to meet the width in spite of
them. The first, for none, is what an honest model costs.

Where no look within half of S can meet the width in spite of what was broken already, the audit
goes on to all S images: then nothing is left to estimate. Half is where sampling stops paying.

The bound is on the gap to AutoAttack, with AutoAttack's random numbers as they are. It says nothing
of attacks that are stronger than both.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpat_cli.text import count

SHARE = 2 / 3
"""Of the error probability that is left: what the next look may spend."""

MOST_SAMPLED = 0.5
"""Share of S above which the whole is attacked."""


def at_most_probability(k: int, population: int, broken: int, sampled: int) -> float:
    """P(X <= k) for X hypergeometric: of `sampled` drawn from a `population` without replacement,
    `broken` of which are broken.

    scipy.stats has it too, and takes a second to import.
    """
    from scipy.special import gammaln

    low, high = max(0, sampled - (population - broken)), min(k, broken, sampled)
    if high < low:
        return 0.0
    if k >= min(broken, sampled):
        return 1.0
    hits = np.arange(low, high + 1, dtype=np.float64)

    def log_choose(n: Any, r: Any) -> Any:
        return gammaln(n + 1.0) - gammaln(r + 1.0) - gammaln(n - r + 1.0)

    ways = log_choose(broken, hits) + log_choose(population - broken, sampled - hits)
    total = np.exp(ways - log_choose(population, sampled)).sum()
    return float(min(1.0, total))


def most_broken(population: int, sampled: int, k: int, alpha: float) -> int:
    """The exact upper bound (1 - alpha) on how many of a population are broken, if `k` of those
    `sampled` are: the largest number under which k or fewer are likelier than alpha.

    Raises `ValueError` unless 0 <= k <= sampled <= population.
    """
    if not 0 <= k <= sampled <= population:
        raise ValueError(f"{k} of {sampled} of {population}")
    # The more are broken, the less likely are so few: the largest number is found by halving.
    low, high = k, population - sampled + k
    while low < high:
        middle = (low + high + 1) // 2
        if at_most_probability(k, population, middle, sampled) > alpha:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True)
class Look:
    """At a sample of `sampled` images the audit looks with error probability `alpha`; up to
    `allowed` broken ones meet the width."""

    sampled: int
    allowed: int
    alpha: float


def plan(population: int, room: int, alpha: float) -> list[Look]:
    """The looks of an audit of `population` images, none above half of them: sizes at which at most
    `room` images that were not attacked can be broken, in spite of 0, 1, 3, 7, ... that were."""
    looks: list[Look] = []
    left, allowed = alpha, 0
    while population:
        share = left * SHARE
        sampled = _smallest_sample(population, allowed, room, share)
        if sampled > population * MOST_SAMPLED:
            return looks
        looks.append(Look(sampled, allowed, share))
        left, allowed = left - share, 2 * allowed + 1
    return looks


def _smallest_sample(population: int, allowed: int, room: int, alpha: float) -> int:
    low, high = min(max(allowed, 1), population), population
    while low < high:
        middle = (low + high) // 2
        if most_broken(population, middle, allowed, alpha) - allowed <= room:
            high = middle
        else:
            low = middle + 1
    return low


def next_look(looks: Sequence[Look], sampled: int, broken: int) -> Look | None:
    """The next look that can meet the width in spite of what is broken already, if there is one."""
    able = (look for look in looks if look.sampled > sampled and look.allowed >= broken)
    return next(able, None)


def priority(n: int, seed: int) -> Tensor:
    """An order (N,) of all images that is fixed by the seed before anything is measured.

    numpy's RandomState, since its stream is frozen for good: a seed means the same order in every
    version.
    """
    digest = hashlib.sha256(f"{seed}/audit".encode()).digest()
    random = np.random.RandomState(int.from_bytes(digest[:4], "big"))
    return torch.from_numpy(random.permutation(n)).long()


def room_of(width: float, n: int) -> int:
    """How many of `n` images are `width` points."""
    return math.floor(width * n / 100 + 1e-9)


@dataclass(frozen=True)
class Audit:
    """What an audit found. `width` (points) was asked for at `level`.

    Of `n` images the attacks before left `survivors`; AutoAttack attacked `sampled` of them
    (`sample`: which, in the order drawn) and broke `broken`. Of those that it did not attack it
    breaks `unseen` at most, at that level. `looks` are all that were planned; `seed` is that of the
    order. `reason`: why the whole was attacked, if it was.
    """

    width: float
    level: float
    n: int
    survivors: int
    sampled: int
    broken: int
    unseen: int
    seed: int
    sample: tuple[int, ...]
    looks: tuple[Look, ...] = ()
    reason: str = ""

    @property
    def whole(self) -> bool:
        """Whether AutoAttack attacked all images that were left."""
        return self.sampled == self.survivors

    @property
    def gap(self) -> float:
        """How much lower, at most, AutoAttack on all images is than the accuracy in the worst case,
        a fraction."""
        return self.unseen / self.n

    @property
    def estimate(self) -> float:
        """The accuracy that AutoAttack on all images is expected to leave, a fraction."""
        share = self.broken / self.sampled if self.sampled else 0.0
        return self.survivors / self.n * (1 - share)

    @property
    def headline(self) -> str:
        """In one short line."""
        if self.whole:
            return "AutoAttack attacked every image that was left"
        return f"AutoAttack is at most {points(self.gap)} points lower ({100 * self.level:.4g} %)"

    @property
    def statement(self) -> str:
        """In full: the bound, what it is from, and what it does not say."""
        facts = (
            f"it broke {count(self.broken)} of {count(self.sampled)} images drawn at random from "
            f"the {count(self.survivors)} that the other attacks left"
        )
        if self.whole:
            facts = (
                f"{self.reason}; it broke {count(self.broken)} of the {count(self.survivors)} that "
                "the other attacks left"
            )
        return (
            f"{self.headline}; {facts}. This bounds the gap to AutoAttack, not to the truth: a "
            "stronger attack may break more"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        values = {**asdict(self), "sample": list(self.sample)}
        values["looks"] = [asdict(look) for look in self.looks]
        return {
            **values,
            "whole": self.whole,
            "gap": self.gap,
            "estimate": self.estimate,
            "statement": self.statement,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Audit":
        """The inverse of `to_dict`; what is computed is computed again."""
        own = {name: data[name] for name in cls.__dataclass_fields__}
        own["sample"] = tuple(map(int, own["sample"]))
        own["looks"] = tuple(Look(**look) for look in own["looks"])
        return cls(**own)


def points(fraction: float) -> str:
    """In points, rounded up to hundredths: a bound must not be rounded down."""
    return f"{math.ceil(fraction * 1e4 - 1e-6) / 100:.2f}"
