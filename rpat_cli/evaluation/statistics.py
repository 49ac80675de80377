"""What the per-sample flags of an evaluation say: accuracies with their uncertainty, per class and
at worst."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a proportion that stays honest near 0 and 1 and for small n (Wilson, JASA
    1927).

    Returns (low, high) as fractions; (0, 1), nothing known, for n = 0. Raises `ValueError` unless 0
    <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    denominator = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / denominator
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Accuracy:
    """`correct` samples of `n`: a fraction that never travels without its interval."""

    correct: int
    n: int

    @property
    def value(self) -> float:
        """The fraction that is correct; `nan` when there is no sample."""
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval, as fractions."""
        return wilson_interval(self.correct, self.n)

    @classmethod
    def of(cls, flags: Tensor) -> "Accuracy":
        """From a boolean tensor (N,), true where the sample is right."""
        return cls(int(flags.sum()), flags.numel())


def per_class_accuracy(flags: Tensor, y: Tensor, classes: int) -> list[Accuracy]:
    """One `Accuracy` per class, in order of the labels `y` (N,); `flags` (N,) is true where a
    sample is right."""
    totals = torch.bincount(y, minlength=classes)
    right = torch.bincount(y[flags], minlength=classes)
    return [Accuracy(int(r), int(t)) for r, t in zip(right, totals, strict=True)]


def confusion(y: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(classes, classes) counts: row the true class `y` (N,), column the `predicted` one (N,)."""
    return torch.bincount(y * classes + predicted, minlength=classes * classes).view(
        classes, classes
    )


def worst_class(accuracies: Sequence[Accuracy]) -> int | None:
    """The class with the lowest accuracy among those that have samples; `None` when none has."""
    present = [k for k, accuracy in enumerate(accuracies) if accuracy.n]
    return min(present, key=lambda k: accuracies[k].value, default=None)


def sign_test(more: int, less: int) -> float:
    """The one-sided exact binomial test on discordant pairs: how likely are `more` or more of them
    by a fair coin?

    Of samples on which two things differ, `more` speak for the first and `less` for the second. 1.0
    without any.
    """
    n = more + less
    ways = total = math.comb(n, more)
    for k in range(
        more, n
    ):  # exact integers, each from the one before: no rounding, however many pairs there are
        ways = ways * (n - k) // (k + 1)
        total += ways
    return float(total / 2**n)


def welch_interval(a: Tensor, b: Tensor) -> tuple[float, float] | None:
    """The 95 % interval of mean(a) - mean(b), for samples (N,), (M,) of whatever variance (Welch,
    Biometrika 1947).

    `None` with fewer than two samples in either.
    """
    if min(len(a), len(b)) < 2:
        return None
    a, b = a.double(), b.double()
    squares = [float(each.var()) / len(each) for each in (a, b)]
    gap, total = float(a.mean() - b.mean()), sum(squares)
    if not total:
        return gap, gap
    df = total**2 / sum(
        part**2 / (len(each) - 1) for part, each in zip(squares, (a, b), strict=True)
    )
    half = t_quantile_95(int(df)) * math.sqrt(
        total
    )  # rounding down makes the interval wider, never narrower
    return gap - half, gap + half


def t_two_sided(t: float, df: int) -> float:
    """P(|T| < t) for Student's t with `df` degrees of freedom: the finite sums of Abramowitz &
    Stegun, 26.7.3 and 4."""
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
