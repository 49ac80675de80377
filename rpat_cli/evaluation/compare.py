"""Is one model more robust than another, or is it chance? Two evaluations, image by image.

Both models see the same images, so McNemar's test looks at those only that one of them gets right:
far sharper than two intervals that overlap. Exact, by the binomial distribution: McNemar, "Note on
the sampling error of the difference between correlated proportions or percentages", Psychometrika
12, 1947.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rpat_cli.errors import DataError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.statistics import Z_95, Accuracy, sign_test

WORST = "worst case"
"""The label of the comparison over all attacks; made only where both suites have the same ones."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images, without an attack ("clean") or under one.

    `only_a` and `only_b` are the images (indices into the data, from 0) that only the first and
    only the second model gets right. `p` is McNemar's p-value: the probability of a difference of
    this size or more if both models were equally good.
    """

    label: str
    a: Accuracy
    b: Accuracy
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    p: float

    @property
    def difference(self) -> float:
        """B minus A, a fraction of all images."""
        return self.b.value - self.a.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, as fractions."""
        return paired_interval(len(self.only_a), len(self.only_b), self.a.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            **asdict(self),
            "a": self.a.value,
            "b": self.b.value,
            "n": self.a.n,
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "a_interval_95": list(self.a.interval),
            "b_interval_95": list(self.b.interval),
            "difference": self.difference,
            "difference_interval_95": list(self.interval),
        }


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided exact p-value for the numbers of images that only one of two models gets
    right."""
    return min(1.0, 2 * sign_test(max(only_a, only_b), min(only_a, only_b)))


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of the difference in accuracy, B minus A, on the same `n` images, as
    fractions: valid for small numbers, and also where the models differ on no image (Tango,
    Statistics in Medicine 17, 1998)."""
    observed = (only_b - only_a) / n

    def score(gap: float) -> float:
        """How many standard deviations the observed difference is above `gap`, were that true."""
        half = (2 * n - only_b + only_a) * gap - only_a - only_b
        root = math.sqrt(half * half + 8 * n * only_a * gap * (1 - gap))
        q = (root - half) / (4 * n)  # the likeliest share of images that A alone gets right
        variance = n * (2 * q + gap * (1 - gap))
        distance = n * (observed - gap)
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    low = _crossing(lambda gap: score(gap) > Z_95, -1.0, observed)
    high = _crossing(lambda gap: score(gap) > -Z_95, observed, 1.0)
    return low, high


def _crossing(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Up to where a condition holds that does not hold again, found by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def compare(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """Without an attack, under every attack that both suites have, and, if they have the same ones,
    in the worst case.

    Raises `DataError` if images, threat models, or the settings of an attack differ.
    """
    if not torch.equal(a.y, b.y):
        raise DataError(
            f"the two evaluations are of different images ({a.n} and {b.n}). Compare evaluations "
            "of the same test set, with the same --limit."
        )
    if a.threat != b.threat:
        raise DataError(
            f"the two evaluations have different threat models ({a.threat.norm}, "
            f"eps {a.threat.eps:.4g}, and {b.threat.norm}, eps {b.threat.eps:.4g}). Evaluate both "
            "with the same --norm and --eps."
        )
    labels_b = [result.label for result in b.results]
    labels = [
        result.label for result in a.results if result.label in labels_b and result.name != "clean"
    ]
    if differing := [label for label in labels if settings_differ(a[label], b[label])]:
        raise DataError(
            f"the settings of {', '.join(differing)} differ between the two evaluations, for "
            "example --step-size. Evaluate both with the same settings, or give one of the attacks "
            "a label of its own in a suite file."
        )
    pairs = [compared("clean", a.clean_predicted == a.y, b.clean_predicted == b.y)]
    pairs += [compared(label, a[label].correct_after, b[label].correct_after) for label in labels]
    if len(labels) > 1 and {result.label for result in a.results} == set(labels_b):
        pairs.append(compared(WORST, a.worst_case, b.worst_case))
    return pairs


def restricted(evaluation: Evaluation, indices: Tensor, limit: int) -> Evaluation:
    """The evaluation as if only those images (rows of the data) had been measured: what each
    attack left of them, without its cost."""
    results = tuple(
        replace(
            result,
            correct_after=result.correct_after[indices],
            predicted=result.predicted[indices],
            broken_by=result.broken_by[indices],
            distance=result.distance[indices],
            margin=None,
            confidence=None,
            stages=(),
        )
        for result in evaluation.results
    )
    return replace(
        evaluation,
        y=evaluation.y[indices],
        clean_predicted=evaluation.clean_predicted[indices],
        results=results,
        limit=limit,
        clean_margin=None,
        clean_confidence=None,
    )


def settings_differ(a: AttackResult, b: AttackResult) -> bool:
    """Settings that only one of the two has do not count: a version of rpat may have added them."""
    # The same attack may come from another release of its library, and a transfer's source model
    # may lie at another path.
    known = (a.settings.keys() & b.settings.keys()) - {"library", "source"}
    return any(a.settings[key] != b.settings[key] for key in known)


def compared(label: str, a: Tensor, b: Tensor) -> Comparison:
    """`a`, `b` (N,) bool: which images each model gets right."""
    only_a, only_b = _indices(a & ~b), _indices(b & ~a)
    p = mcnemar(len(only_a), len(only_b))
    return Comparison(label, Accuracy.of(a), Accuracy.of(b), only_a, only_b, p)


def _indices(flags: Tensor) -> tuple[int, ...]:
    return tuple(flags.nonzero().squeeze(1).tolist())
