"""What an evaluation measured, per attack and per sample, and its form as JSON.

Accuracies are computed from flags of single samples whenever they are asked for: a file that says
one thing in its flags and another in its totals cannot be read wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.evaluation.consistency import inconsistency
from rpat_cli.evaluation.samples_json import (
    floats_to_list,
    list_to_floats,
)
from rpat_cli.evaluation.statistics import Accuracy, confusion, per_class_accuracy, worst_class
from rpat_cli.records.eval_file import DamagedEvalError, EvalFile

AUTOATTACK = "autoattack"
"""AutoAttack's standard version: the attack that the paper's Mean and NRR are computed with."""


@dataclass(frozen=True)
class Evaluation:
    """The results of a model under a suite of attacks. Tensors are (N,), on the CPU.

    `y` (int64) are the labels. `limit`: the images are a fixed, stratified subset of this size, or
    those of another choice, in words; `None`: they are the whole test set. Margin and confidence
    are as in `AttackResult`. `classes` is the number of classes of the model. These three are
    `None` in files of versions that did not record them.
    """

    threat: Threat
    y: Tensor
    clean_predicted: Tensor
    results: tuple[AttackResult, ...]
    seed: int
    batch_size: int
    limit: int | str | None = None
    clean_margin: Tensor | None = None
    clean_confidence: Tensor | None = None
    classes: int | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.y)

    @property
    def clean(self) -> Accuracy:
        """Accuracy on clean images."""
        return Accuracy.of(self.clean_predicted == self.y)

    @property
    def worst_case(self) -> Tensor:
        """(N,) bool: right, and still right after every attack of the suite."""
        flags = self.clean_predicted == self.y
        for result in self.results:
            flags = flags & result.correct_after
        return flags

    @property
    def robust(self) -> Accuracy:
        """Accuracy in the worst case over all attacks of the suite."""
        return Accuracy.of(self.worst_case)

    @property
    def attacks(self) -> list[AttackResult]:
        """The results without "clean", which is no attack."""
        return [result for result in self.results if result.name != "clean"]

    @property
    def strongest(self) -> AttackResult | None:
        """The attack with the lowest accuracy; AutoAttack among equals; `None` without attacks."""
        return min(
            self.attacks, key=lambda result: strength(result.label, result.accuracy), default=None
        )

    @cached_property
    def class_count(self) -> int:
        """`classes`; in files without it, one more than the largest label or prediction."""
        seen = [self.y, self.clean_predicted, *(result.predicted for result in self.results)]
        return self.classes or 1 + max(int(labels.max()) for labels in seen)

    @property
    def per_class(self) -> list[Accuracy]:
        """By true class: accuracy in the worst case over all attacks of the suite."""
        return per_class_accuracy(self.worst_case, self.y, self.class_count)

    @property
    def clean_per_class(self) -> list[Accuracy]:
        """By true class: accuracy on clean images."""
        return per_class_accuracy(self.clean_predicted == self.y, self.y, self.class_count)

    @property
    def clean_calibration(self) -> Calibration | None:
        """On clean images; `None` where confidences were not recorded."""
        if self.clean_confidence is None:
            return None
        return Calibration.of(self.clean_confidence, self.clean_predicted == self.y)

    def __getitem__(self, label: str) -> AttackResult:
        """The result with that label. Raises `KeyError`, with the labels there are."""
        for result in self.results:
            if result.label == label:
                return result
        raise KeyError(f"{label!r} is not one of {', '.join(each.label for each in self.results)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "threat": asdict(self.threat),
            "n": self.n,
            "limit": self.limit,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "clean_acc": self.clean.value,
            "clean_interval_95": list(self.clean.interval),
            "robust_acc": self.robust.value,
            "robust_interval_95": list(self.robust.interval),
            "classes": self.class_count,
            **self._by_class(),
            "clean_calibration": _calibration_dict(self.clean_calibration),
            "strongest": self._of_strongest(),
            "results": [result.to_dict() for result in self.results],
            "y": self.y.tolist(),
            "clean_predicted": self.clean_predicted.tolist(),
            "clean_margin": floats_to_list(self.clean_margin),
            "clean_confidence": floats_to_list(self.clean_confidence),
        }

    def _by_class(self) -> dict[str, Any]:
        """Clean and in the worst case over all attacks."""
        clean, robust = self.clean_per_class, self.per_class
        return {
            "per_class": [
                {"n": each.n, "clean_correct": before.correct, "robust_correct": each.correct}
                for before, each in zip(clean, robust, strict=True)
            ],
            "worst_class": worst_class_dict(robust),
        }

    def _of_strongest(self) -> dict[str, Any] | None:
        """Confusion (rows true, columns predicted) and calibration under the strongest attack."""
        if (result := self.strongest) is None:
            return None
        counts = confusion(self.y, result.predicted, self.class_count)
        return {
            "label": result.label,
            "confusion": counts.tolist(),
            "calibration": _calibration_dict(result.calibration),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return cls(
            threat=Threat(**data["threat"]),
            y=torch.tensor(data["y"], dtype=torch.int64),
            clean_predicted=torch.tensor(data["clean_predicted"], dtype=torch.int64),
            results=tuple(AttackResult.from_dict(result) for result in data["results"]),
            seed=data["seed"],
            batch_size=data["batch_size"],
            limit=data.get("limit"),
            clean_margin=list_to_floats(data.get("clean_margin")),
            clean_confidence=list_to_floats(data.get("clean_confidence")),
            classes=data.get("classes"),
        )


def parse_evaluation(file: EvalFile) -> Evaluation:
    """What a file of `evals/` measured. Raises `DamagedEvalError` if a part of it does not fit."""
    try:
        evaluation = Evaluation.from_dict(file.record)
        problem = inconsistency(evaluation, file.record)
    except KeyError as error:
        raise DamagedEvalError(file.path, f"{error} is missing") from None
    # What the builtins and torch raise for values of another type, size or range.
    except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, RpatError) as e:
        raise DamagedEvalError(file.path, f"{type(e).__name__}: {e}") from None
    if problem:
        raise DamagedEvalError(file.path, problem)
    return evaluation


def strength(label: str, accuracy: Accuracy) -> tuple[float, bool]:
    """Sorts attacks by the accuracy they left, the strongest first; AutoAttack among equals."""
    return accuracy.value, label != AUTOATTACK


def worst_class_dict(accuracies: Sequence[Accuracy]) -> dict[str, Any] | None:
    """The class with the lowest accuracy as plain builtins; `None` without samples."""
    if (worst := worst_class(accuracies)) is None:
        return None
    accuracy = accuracies[worst]
    return {
        "class": worst,
        "robust_acc": accuracy.value,
        "interval_95": list(accuracy.interval),
        "n": accuracy.n,
    }


def _calibration_dict(calibration: Calibration | None) -> dict[str, Any] | None:
    return None if calibration is None else calibration.to_dict()
