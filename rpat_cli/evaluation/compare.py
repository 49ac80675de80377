"""Is one model more robust than another, or is it chance? Two evaluations, image by image."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rpat_cli.errors import DataError
from rpat_cli.evaluation.results import AttackResult, Evaluation
from rpat_cli.evaluation.statistics import Accuracy, sign_test

WORST = "worst case"
"""Over all attacks of each suite; compared only where both suites are the same."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images, without or under one attack.

    `only_a`, `only_b`: which images (rows of the data, from 0) only the first, only the second
    model gets right. `p` is McNemar's: how likely a difference of that size or more is, if both
    models were equally good.
    """

    label: str
    a: Accuracy
    b: Accuracy
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            **asdict(self),
            "a": self.a.value,
            "b": self.b.value,
            "n": self.a.n,
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided exact p-value (McNemar, Psychometrika 1947, by the binomial distribution)."""
    return min(1.0, 2 * sign_test(max(only_a, only_b), min(only_a, only_b)))


def compare(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """Without an attack, under every attack that both suites hold, and, of equal suites, in the
    worst case.

    Raises `DataError` for evaluations of other images or another threat, or with other settings of
    an attack.
    """
    if not torch.equal(a.y, b.y):
        raise DataError(
            f"the two evaluations are of other images ({a.n} and {b.n}); compare those of one "
            "test set."
        )
    if a.threat != b.threat:
        raise DataError(
            f"the two evaluations are of other threats ({a.threat.norm}, eps {a.threat.eps:.4g}, "
            f"and {b.threat.norm}, "
            f"eps {b.threat.eps:.4g}). Evaluate both with the same --norm and --eps."
        )
    labels_b = [result.label for result in b.results]
    labels = [
        result.label for result in a.results if result.label in labels_b and result.name != "clean"
    ]
    if differing := [label for label in labels if _settings_differ(a[label], b[label])]:
        raise DataError(
            f"{', '.join(differing)} ran with other settings in the two evaluations, such as "
            "--step-size. "
            "Evaluate both with the same, or give one of them a label of its own in a suite file."
        )
    pairs = [_compare("clean", a.clean_predicted == a.y, b.clean_predicted == b.y)]
    pairs += [_compare(label, a[label].correct_after, b[label].correct_after) for label in labels]
    if len(labels) > 1 and {result.label for result in a.results} == set(labels_b):
        pairs.append(_compare(WORST, a.worst_case, b.worst_case))
    return pairs


def _settings_differ(a: AttackResult, b: AttackResult) -> bool:
    """As far as both know them; the same attack may come from another version, or another path to
    the same model."""
    known = (a.settings.keys() & b.settings.keys()) - {"library", "source"}
    return any(a.settings[key] != b.settings[key] for key in known)


def _compare(label: str, a: Tensor, b: Tensor) -> Comparison:
    only_a, only_b = (
        (one & ~other).nonzero().squeeze(1).tolist() for one, other in ((a, b), (b, a))
    )
    p = mcnemar(len(only_a), len(only_b))
    return Comparison(label, Accuracy.of(a), Accuracy.of(b), tuple(only_a), tuple(only_b), p)
