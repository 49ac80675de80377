"""Accuracies with their uncertainty, per class and at worst, and the tests that compare them.

Of scipy only `special` is used, imported on the first call: `scipy.stats` alone would add a second
or more to every `rpat eval` and `rpat compare`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, JASA 1927): valid near 0 and 1 and for small n.

    Returns (low, high) as fractions; (0, 1) for n = 0. Raises `ValueError` unless
    0 <= successes <= n.

    The closed form is ours because scipy's `binomtest(...).proportion_ci("wilson")` computes an
    exact p-value first, a millisecond for each cell of a table; a test compares the two.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    denominator = 1 + z * z / n
    center = (p + z * z / (2 * n)) / denominator
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    # At either end rounding would leave 1e-17 instead of the exact bound.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return low, high


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` images: a fraction together with its confidence interval."""

    correct: int
    n: int

    @property
    def value(self) -> float:
        """The fraction that is correct; `nan` without any image."""
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval, as fractions."""
        return wilson_interval(self.correct, self.n)

    @classmethod
    def of(cls, flags: Tensor) -> "Accuracy":
        """From a boolean tensor (N,), true where the prediction is correct."""
        return cls(int(flags.sum()), flags.numel())


def per_class_accuracy(flags: Tensor, y: Tensor, classes: int) -> list[Accuracy]:
    """One `Accuracy` per class, in order of the labels `y` (N,); `flags` (N,) is true where the
    prediction is correct."""
    totals = torch.bincount(y, minlength=classes).tolist()
    correct = torch.bincount(y[flags], minlength=classes).tolist()
    return [Accuracy(k, n) for k, n in zip(correct, totals, strict=True)]


def confusion(y: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts (classes, classes): rows are true classes `y` (N,), columns `predicted` ones (N,)."""
    return torch.bincount(y * classes + predicted, minlength=classes * classes).view(
        classes, classes
    )


def worst_class(accuracies: Sequence[Accuracy]) -> int | None:
    """The class with the lowest accuracy among those with images, the first of equals; `None`
    without any image."""
    present = [k for k, accuracy in enumerate(accuracies) if accuracy.n]
    return min(present, key=lambda k: accuracies[k].value, default=None)


def mean_acc(clean_acc: float, robust_acc: float) -> float:
    """Mean = (clean + robust) / 2, of fractions, as RPAT reports it (Wang & Liu, ICCV 2025)."""
    return (clean_acc + robust_acc) / 2


def nrr(clean_acc: float, robust_acc: float) -> float:
    """NRR = 2 · clean · robust / (clean + robust): the harmonic mean, low when either is; 0 when
    both are 0 (Wang & Liu, ICCV 2025, arXiv 2508.02186)."""
    total = clean_acc + robust_acc
    return 2 * clean_acc * robust_acc / total if total else 0.0


def sign_test(more: int, less: int) -> float:
    """The one-sided exact sign test on discordant pairs: P(X >= more), X ~ Binomial(n, 1/2).

    Of the n = more + less images on which two things differ, `more` favor the first and `less` the
    second. 1.0 if there are none.
    """
    from scipy.special import bdtrc

    return float(bdtrc(more - 1, more + less, 0.5))


def welch_interval(a: Tensor, b: Tensor) -> tuple[float, float] | None:
    """The 95 % interval of mean(a) - mean(b), for samples (N,), (M,) of unequal variance (Welch,
    Biometrika 1947).

    `None` with fewer than two samples in either. Not `scipy.stats.ttest_ind`, whose degrees of
    freedom are fractions: rounded down, as here, they make the interval wider and never narrower.
    """
    if min(len(a), len(b)) < 2:
        return None
    a, b = a.double(), b.double()
    gap = float(a.mean() - b.mean())
    part_a, part_b = float(a.var()) / len(a), float(b.var()) / len(b)
    total = part_a + part_b
    if not total:
        return gap, gap
    df = total**2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    half = t_quantile_95(int(df)) * math.sqrt(total)
    return gap - half, gap + half


@cache
def t_quantile_95(df: int) -> float:
    """The t with P(|T| < t) = 0.95 for Student's t with `df` degrees of freedom: 12.706 for 1, 1.96
    in the limit."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))
