"""Does what a file of `evals/` holds fit together? Damage that is still JSON is found here.

Accuracies are computed from the flags of single images; those that were written beside them work as
a checksum.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rpat_cli.evaluation.statistics import Accuracy

if TYPE_CHECKING:
    from rpat_cli.evaluation.attack_result import AttackResult
    from rpat_cli.evaluation.audit import Audit
    from rpat_cli.evaluation.results import Evaluation

MAX_CLASSES = 100_000
"""More than any data set has: a damaged number of them must not ask for a table of its square."""


def inconsistency(evaluation: "Evaluation", record: Mapping[str, Any]) -> str:
    """What does not fit together in an evaluation, or with the record that it was read from; empty
    if all does."""
    if evaluation.y.ndim != 1 or not evaluation.n:
        return "it has no labels"
    for name, values in _per_image(evaluation):
        if values.shape != evaluation.y.shape:
            return f"{name} has {values.numel()} values for {evaluation.n} images"
    classes = evaluation.class_count
    if not isinstance(classes, int) or not 0 < classes <= MAX_CLASSES:
        return f"it has {classes!r} classes"
    for name, labels in _labels(evaluation):
        if labels.min() < 0 or labels.max() >= classes:
            return f"{name} has labels outside 0 to {classes - 1}"
    for result in evaluation.results:
        if problem := _problem_of(result):
            return f"{result.label}: {problem}"
    return _wrong_total(evaluation, record)


def _problem_of(result: "AttackResult") -> str:
    if not isinstance(result.label, str) or not isinstance(result.name, str):
        return "name and label are not texts"
    if not all(isinstance(text, str) for text in (*result.flags, *result.notes)):
        return "flags and notes are not texts"
    dict(result.settings)
    if result.audit and not _is_plausible(result.audit, len(result.correct_after)):
        return "the numbers of its audit do not fit together"
    numbers = [result.seconds, result.forward, result.backward]
    for stage in result.stages:
        numbers += [stage.attacked, stage.broken, stage.seconds]
        numbers += [passes for passes in (stage.forward, stage.backward) if passes is not None]
        if not isinstance(stage.name, str):
            return "the name of a stage is not a text"
    for number in numbers:
        if not isinstance(number, int | float) or not 0 <= number < 1e18:
            return f"{number!r} is no time, and no number of images or passes"
    return ""


def _is_plausible(audit: "Audit", n: int) -> bool:
    counts = [audit.broken, audit.sampled, audit.survivors, audit.n]
    whole = all(isinstance(number, int) for number in (*counts, audit.unseen, audit.seed))
    texts = isinstance(audit.reason, str)
    shares = 0 < audit.width <= 100 and 0 < audit.level < 1
    fits = len(audit.sample) == audit.sampled and 0 <= audit.unseen <= audit.survivors
    return whole and texts and shares and fits and counts == sorted(counts) and audit.n == n


def _wrong_total(evaluation: "Evaluation", record: Mapping[str, Any]) -> str:
    recorded: list[tuple[str, Any, Accuracy]] = [
        ("clean", record.get("clean_acc"), evaluation.clean),
        ("worst case", record.get("robust_acc"), evaluation.robust),
    ]
    for result, saved in zip(evaluation.results, record["results"], strict=True):
        recorded.append((result.label, saved.get("robust_acc"), result.accuracy))
    for label, value, accuracy in recorded:
        if value is not None and not abs(value - accuracy.value) < 0.5 / accuracy.n:
            return f"{label}: the images add up to {accuracy.value:.4f}, and it says {value}"
    return ""


def _per_image(evaluation: "Evaluation") -> Iterator[tuple[str, Tensor]]:
    yield from _labels(evaluation)
    optional = {
        "clean_margin": evaluation.clean_margin,
        "clean_confidence": evaluation.clean_confidence,
    }
    for result in evaluation.results:
        yield f"{result.label}: correct_after", result.correct_after
        yield f"{result.label}: broken_by", result.broken_by
        yield f"{result.label}: distance", result.distance
        optional[f"{result.label}: margin"] = result.margin
        optional[f"{result.label}: confidence"] = result.confidence
    for name, values in optional.items():
        if values is not None:
            yield name, values


def _labels(evaluation: "Evaluation") -> Iterator[tuple[str, Tensor]]:
    yield "y", evaluation.y
    yield "clean_predicted", evaluation.clean_predicted
    for result in evaluation.results:
        yield f"{result.label}: predicted", result.predicted
