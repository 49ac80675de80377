"""Robust in several threat models at once: right under all of them, image by image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import DataError
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.samples_json import bits_to_text
from rpat_cli.evaluation.statistics import Accuracy


@dataclass(frozen=True)
class ThreatUnion:
    """A model under several threats. `parts` are the worst cases under each, in the order of
    `threats`; `correct_after` (N,) bool: right, and still right after every attack of every
    threat."""

    threats: tuple[Threat, ...]
    parts: tuple[Accuracy, ...]
    clean: Accuracy
    correct_after: Tensor

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation]) -> "ThreatUnion":
        """From one evaluation for each threat. Raises `DataError` if they are of different
        images."""
        first = evaluations[0]
        if any(not torch.equal(first.y, other.y) for other in evaluations):
            raise DataError("the evaluations under these threats are of different images.")
        flags = [evaluation.worst_case for evaluation in evaluations]
        return cls(
            threats=tuple(evaluation.threat for evaluation in evaluations),
            parts=tuple(map(Accuracy.of, flags)),
            clean=first.clean,
            correct_after=reduce(torch.logical_and, flags),
        )

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy under all threats, with its interval."""
        return Accuracy.of(self.correct_after)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "threats": [
                {**asdict(threat), **_accuracy(part)}
                for threat, part in zip(self.threats, self.parts, strict=True)
            ],
            **_accuracy(self.accuracy),
            "n": self.accuracy.n,
            "clean_acc": self.clean.value,
            "correct_after": bits_to_text(self.correct_after),
        }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {"robust_acc": accuracy.value, "interval_95": list(accuracy.interval)}
