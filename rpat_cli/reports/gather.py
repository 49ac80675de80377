"""A run folder, gathered into a `Report`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.diagnostics.base import EVALUATION_KEYS
from rpat_cli.diagnostics.blocks import Examples
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.statistics import confusion, per_class_accuracy
from rpat_cli.recipe.layers import read_recipe, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.records.examples import read_examples
from rpat_cli.records.regular import read_regular
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.evaluations import Measured, fitting, read_evaluations, unions_of
from rpat_cli.reports.gallery import gallery
from rpat_cli.reports.report import AttackSummary, Report
from rpat_cli.reports.saved_diagnostic import SavedDiagnostic
from rpat_cli.reports.test_looks import look_of, remarks_on
from rpat_cli.reports.training import read_training

DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    RpatError,
)
"""What builtins and torch raise for values of another type, size or range than was written."""


def build_report(folder: RunFolder) -> Report:
    """Gather a run folder. Unreadable parts are named among the remarks; only the recipe must be
    there.

    Where several evaluations hold the same attack on the same weights, the newest counts; those of
    weights that further training has replaced, and those on other data, do not. Raises
    `ConfigError` for a recipe that cannot be read.
    """
    remarks: list[str] = []
    recipe = resolve(read_recipe(folder.recipe))
    training = read_training(folder, recipe.epochs, remarks)
    every = read_evaluations(folder, training.checkpoints, remarks)
    counted = fitting(every, recipe, remarks)
    results = _newest_results(counted)
    newest = counted[-1].file if counted else None
    looks = tuple(look_of(each.file, each.evaluation.n) for each in every)
    named = newest.class_names if newest else ()
    return Report(
        path=str(folder.path),
        recipe=recipe,
        recipe_yaml=read_regular(folder.recipe).decode("utf-8"),
        summary=summary(recipe),
        environment=training.environment or (newest.environment if newest else {}),
        trained_in=training.environment,
        device=newest.device if newest else "",
        class_names=named or training.class_names,
        epochs=training.records,
        best_epoch=training.best_epoch(),
        epochs_done=training.done,
        segments=training.segments,
        checkpoints=training.checkpoints,
        test_looks=looks,
        results=results,
        unions=unions_of(counted),
        diagnostics=_newest_diagnostics(every, recipe, remarks),
        remarks=(
            *training.remarks(folder, recipe),
            *remarks_on(looks, recipe.epochs),
            *remarks,
            *_remarks_on_results(results),
        ),
        gallery=_newest_gallery(counted, Threat(recipe.threat.norm, recipe.threat.eps)),
    )


def _newest_gallery(counted: Sequence[Measured], threat: Threat) -> Examples | None:
    for each in reversed(counted):
        kept = read_examples(each.file.path) if each.evaluation.threat == threat else None
        if kept is not None and (found := gallery(kept, each.file.class_names)):
            return found
    return None


def _newest_results(evaluations: Iterable[Measured]) -> tuple[AttackSummary, ...]:
    newest: dict[tuple[str, str, Threat | None], AttackSummary] = {}
    for measured in evaluations:  # oldest first, so that newer ones replace them
        for checkpoint in measured.checkpoints:
            for result in _results_in(measured, checkpoint.name):
                newest[result.checkpoint, result.label, result.threat] = result
    return tuple(newest.values())


def _newest_diagnostics(
    every: Iterable[Measured], recipe: Recipe, remarks: list[str]
) -> dict[str, SavedDiagnostic]:
    """Each diagnostic from the newest file that has it, also of some of the test images: it says of
    how many."""
    newest: dict[str, SavedDiagnostic] = {}
    for measured in every:
        if not measured.checkpoints or measured.file.data != recipe.data.name:
            continue
        remarks += _of_absent_plugins(measured)
        for name, diagnostic in DIAGNOSTICS.items():
            if not measured.file.has_diagnostic(name):
                continue
            content = measured.file.diagnostic(name)
            title, file = measured.checkpoints[0].title, measured.file.path.name
            try:
                result = diagnostic.result(content)
            except DAMAGE:
                remarks.append(f"the {name} in {measured.name} cannot be read and was left out")
                continue
            found = measured.evaluation
            only = None if found.limit is None else found.n
            newest[name] = SavedDiagnostic(title, file, content, result, found.threat, only)
    return {name: newest[name] for name in DIAGNOSTICS if name in newest}


def _of_absent_plugins(measured: Measured) -> list[str]:
    known = EVALUATION_KEYS | set(DIAGNOSTICS)
    return [
        f"the diagnostic {name!r} in {measured.name} was left out: no plugin that is loaded has "
        "it. Evaluate again with --plugin FILE to see it"
        for name, content in measured.file.record.items()
        if name not in known and isinstance(content, Mapping)
    ]


def _results_in(measured: Measured, checkpoint: str) -> Iterator[AttackSummary]:
    """Clean, which every evaluation has measured, and its attacks."""
    file, evaluation = measured.file, measured.evaluation
    y, classes = evaluation.y, max(len(file.class_names), evaluation.class_count)
    right = evaluation.clean_predicted == y
    origin: dict[str, Any] = {
        "checkpoint": checkpoint,
        "evaluation": file.path.name,
        "created": file.created,
    }
    yield AttackSummary(
        attack="clean",
        label="clean",
        threat=None,
        accuracy=evaluation.clean,
        per_class=tuple(per_class_accuracy(right, y, classes)),
        confusion=confusion(y, evaluation.clean_predicted, classes),
        calibration=evaluation.clean_calibration,
        settings={},
        **origin,
    )
    for result in evaluation.attacks:
        yield AttackSummary(
            attack=result.name,
            label=result.label,
            threat=result.threat,
            accuracy=result.accuracy,
            per_class=tuple(per_class_accuracy(result.correct_after, y, classes)),
            confusion=confusion(y, result.predicted, classes),
            calibration=result.calibration,
            settings=result.settings,
            stages=result.stages,
            seconds=result.seconds,
            forward=result.forward,
            backward=result.backward,
            flags=result.flags,
            notes=result.notes,
            audit=result.audit,
            **origin,
        )


def _remarks_on_results(results: Sequence[AttackSummary]) -> list[str]:
    """Flags and notes, each once with the checkpoints it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for text in (*result.flags, *result.notes):
            about.setdefault((result.label, text), []).append(result.checkpoint)
    remarks = [
        f"{label} on {' and '.join(dict.fromkeys(names))}: {text}"
        for (label, text), names in about.items()
    ]
    counts = sorted({result.accuracy.n for result in results})
    if len(counts) > 1:
        sizes = ", ".join(map(str, counts))
        remarks.append(f"the accuracies are not all over the same number of images: {sizes}")
    return remarks
