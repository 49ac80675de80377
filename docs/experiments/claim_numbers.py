"""The statistics of the experiment: paired tests, Holm's correction, rank correlations, and how
many pairs a difference needs."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import chdtri, ndtr, stdtr, stdtrit
from scipy.stats import rankdata

from rpat_cli.evaluation.statistics import Z_95
from rpat_cli.sweep.intervals import Stat

MOST_PAIRS = 10_000

QUANTILES = (np.arange(2000) + 0.5) / 2000


def paired_p(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of Student's t test that the mean is 0; None below two values."""
    stat = Stat.of(differences)
    if stat.sd is None:
        return None
    if stat.sd == 0:
        return 1.0 if stat.mean == 0 else 0.0
    t = stat.mean / (stat.sd / math.sqrt(stat.n))
    return float(2 * stdtr(stat.n - 1, -abs(t)))


def holm(p_values: Sequence[float], planned: int) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 1979), in the order given.

    `planned`: how many comparisons the correction is over; one without a p-value counts as 1.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (planned - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def rank_correlation(
    x: Sequence[float], y: Sequence[float]
) -> tuple[float, tuple[float, float]] | None:
    """Spearman's, with its 95 % interval by Fisher's z; None below four pairs or without spread."""
    if len(x) < 4 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    rho = float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    if abs(rho) > 1 - 1e-12:
        return math.copysign(1.0, rho), (math.copysign(1.0, rho),) * 2
    half = Z_95 / math.sqrt(len(x) - 3)
    z = math.atanh(rho)
    return rho, (math.tanh(z - half), math.tanh(z + half))


def power(n: int, difference: float, sd: float, alpha: float) -> float:
    """How likely n pairs find a true mean difference, by the two-sided t test at level `alpha`.

    The mean over equally likely values of the sample's standard deviation, of which the chance to
    pass either threshold is normal: scipy's noncentral t fails far from 0.
    """
    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    shift = difference / sd * math.sqrt(n)
    spread = np.sqrt(chdtri(n - 1, QUANTILES) / (n - 1))
    passed = ndtr(shift - critical * spread) + ndtr(-shift - critical * spread)
    return float(passed.mean())


def pairs_needed(
    difference: float, sd: float, alpha: float = 0.01, wanted: float = 0.8
) -> int | None:
    """The fewest pairs with this power, which more pairs only raise; None above `MOST_PAIRS`."""
    if sd == 0:
        return 2
    few, many = 1, 2
    while power(many, difference, sd, alpha) < wanted:
        if many == MOST_PAIRS:
            return None
        few, many = many, min(2 * many, MOST_PAIRS)
    while many - few > 1:
        middle = (few + many) // 2
        if power(middle, difference, sd, alpha) < wanted:
            few = middle
        else:
            many = middle
    return many
