"""Means over seeds with what they leave open: standard deviation, and Student's interval of a paired difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Stat:
    """A figure over seeds: `sd` is that of the sample (n - 1), None below two seeds."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Stat":
        """Of at least one value."""
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Difference:
    """A mean difference over the seeds that both have; `interval` is its 95 % interval, None below two seeds."""

    mean: float
    interval: tuple[float, float] | None
    n: int


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """`values` minus `baseline`, seed by seed, with Student's t interval; None without a common seed.

    The same seed means the same split, initial weights and batches: pairing takes out what both owe to these.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    stat = Stat.of([values[seed] - baseline[seed] for seed in seeds])
    if stat.sd is None:
        return Difference(stat.mean, None, stat.n)
    half = t_quantile_95(stat.n - 1) * stat.sd / math.sqrt(stat.n)
    return Difference(stat.mean, (stat.mean - half, stat.mean + half), stat.n)


def t_two_sided(t: float, df: int) -> float:
    """P(|T| < t) for Student's t with `df` degrees of freedom: the finite sums of Abramowitz & Stegun, 26.7.3 and 4."""
    theta = math.atan(t / math.sqrt(df))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = df % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, df, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


@cache
def t_quantile_95(df: int) -> float:
    """The t with P(|T| < t) = 0.95, by bisection: 12.706 for df 1, 1.96 in the limit."""
    low, high = 0.0, 13.0
    for _ in range(50):  # 13 / 2^50 is below the precision of a float near 2
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) < 0.95 else (low, middle)
    return (low + high) / 2
