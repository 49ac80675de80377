"""Means over seeds with their uncertainty: the standard deviation, and Student's t interval of a
paired difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rpat_cli.evaluation.statistics import t_quantile_95


@dataclass(frozen=True)
class Stat:
    """A metric over seeds. `sd` is the sample standard deviation (n - 1), None below two seeds."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Stat":
        """From at least one value."""
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        sd = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
        return cls(mean, sd, len(values))


@dataclass(frozen=True)
class Difference:
    """A mean difference over the `n` seeds that both have; `interval` is its 95 % interval, None
    below two seeds."""

    mean: float
    interval: tuple[float, float] | None
    n: int


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Difference | None:
    """`values` minus `baseline`, both by seed, with Student's t interval; None without a common
    seed.

    The same seed means the same split, initial weights and batches: pairing removes the variance
    that both have from these.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    stat = Stat.of([values[seed] - baseline[seed] for seed in seeds])
    if stat.sd is None:
        return Difference(stat.mean, None, stat.n)
    half = t_quantile_95(stat.n - 1) * stat.sd / math.sqrt(stat.n)
    return Difference(stat.mean, (stat.mean - half, stat.mean + half), stat.n)
