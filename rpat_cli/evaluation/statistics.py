"""What the per-sample flags of an evaluation say: accuracies with their uncertainty, per class and at worst."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a proportion that stays honest near 0 and 1 and for small n (Wilson, JASA 1927).

    Returns (low, high) as fractions; (0, 1), nothing known, for n = 0. Raises `ValueError` unless 0 <= successes <= n.
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
    """One `Accuracy` per class, in order of the labels `y` (N,); `flags` (N,) is true where a sample is right."""
    totals = torch.bincount(y, minlength=classes)
    right = torch.bincount(y[flags], minlength=classes)
    return [Accuracy(int(r), int(t)) for r, t in zip(right, totals, strict=True)]


def worst_class(accuracies: list[Accuracy]) -> int | None:
    """The class with the lowest accuracy among those that have samples; `None` when none has."""
    present = [k for k, accuracy in enumerate(accuracies) if accuracy.n]
    return min(present, key=lambda k: accuracies[k].value, default=None)


def sign_test(more: int, less: int) -> float:
    """The one-sided exact binomial test on discordant pairs: how likely are `more` or more of them by a fair coin?

    Of samples on which two things differ, `more` speak for the first and `less` for the second. 1.0 without any.
    """
    n = more + less
    # Sums of exact integers: no rounding, however many pairs there are.
    return float(sum(math.comb(n, k) for k in range(more, n + 1)) / 2**n)
