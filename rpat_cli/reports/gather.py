"""A run folder, gathered into a `Report`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.results import Evaluation, parse_evaluation
from rpat_cli.evaluation.statistics import confusion, per_class_accuracy
from rpat_cli.recipe.layers import read_recipe, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.records import eval_file
from rpat_cli.records.eval_file import DamagedEvalError, EvalFile
from rpat_cli.records.metrics import AVERAGED, best_record, read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.report import AttackSummary, CheckpointRef, Report
from rpat_cli.reports.saved_diagnostic import SavedDiagnostic


@dataclass(frozen=True)
class _Measured:
    """An evaluation of the run, and the names of the checkpoints whose weights it measured."""

    file: EvalFile
    evaluation: Evaluation
    checkpoints: tuple[CheckpointRef, ...]

    @property
    def name(self) -> str:
        return f"evals/{self.file.path.name}"


def build_report(folder: RunFolder) -> Report:
    """Gather a run folder. Unreadable parts are named among the remarks; only the recipe must be
    there.

    Where several evaluations hold the same attack on the same weights, the newest counts; those of
    weights that further training has replaced, and those on other data, do not. Raises
    `ConfigError` for a recipe that cannot be read.
    """
    remarks: list[str] = []
    recipe = resolve(read_recipe(folder.recipe))
    epochs = tuple(read_metrics(folder.metrics))
    saved = _facts_of_checkpoint(folder, remarks)
    checkpoints = _checkpoints(epochs, saved)
    every = _read_evaluations(folder, checkpoints, remarks)
    counted = _fitting(every, recipe, remarks)
    results = _newest_results(counted)
    newest = counted[-1].file if counted else None
    named = newest.class_names if newest else ()
    return Report(
        path=str(folder.path),
        recipe=recipe,
        recipe_yaml=folder.recipe.read_text(encoding="utf-8"),
        summary=summary(recipe),
        environment=saved.get("environment") or (newest.environment if newest else {}),
        device=newest.device if newest else "",
        class_names=named or tuple(saved.get("class_names", ())),
        epochs=epochs,
        best_epoch=_best_epoch(epochs),
        checkpoints=checkpoints,
        results=results,
        diagnostics=_newest_diagnostics(every, recipe, remarks),
        remarks=(*_remarks_on_training(recipe, epochs), *remarks, *_remarks_on_results(results)),
    )


def _facts_of_checkpoint(folder: RunFolder, remarks: list[str]) -> dict[str, Any]:
    """What the last checkpoint says besides its weights, which stay on disk."""
    path = folder.checkpoint("last")
    if not path.is_file():
        return {}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {
            "class_names": list(content["class_names"]),
            "environment": dict(content["environment"]),
            "under_way": content["training"]["step"] > 0,
        }
    except Exception:  # torch raises a dozen kinds for a damaged file; the report can do without it
        remarks.append(
            f"checkpoints/{path.name} cannot be read, so the environment of the training is not "
            "known"
        )
        return {}


def _best_epoch(epochs: Sequence[Mapping[str, Any]], suffix: str = "") -> int | None:
    best = best_record(epochs, suffix)
    return None if best is None else int(best["epoch"])


def _checkpoints(
    epochs: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]
) -> tuple[CheckpointRef, ...]:
    """Best and last of the trained model, then of its average once validation has seen one."""
    if not epochs:
        return ()
    last = int(epochs[-1]["epoch"])
    found = []
    for suffix in ("", AVERAGED):
        best = _best_epoch(epochs, suffix)
        if best is not None:
            found.append(CheckpointRef(f"best{suffix}", best))
        # A run stopped within an epoch has moved on from its last whole epoch.
        same = best == last and not saved.get("under_way", False)
        if best is not None or not suffix:
            found.append(CheckpointRef(f"last{suffix}", last, same_weights=same))
    return tuple(found)


def _read_evaluations(
    folder: RunFolder, checkpoints: Sequence[CheckpointRef], remarks: list[str]
) -> list[_Measured]:
    """All evaluations that can be read, oldest first."""
    files, damaged = eval_file.read_all(folder.evals)
    remarks += damaged
    every = []
    for file in files:
        try:
            evaluation = parse_evaluation(file)
        except DamagedEvalError as error:
            remarks.append(error.remark)
        else:
            measured = tuple(each for each in checkpoints if _is_of(file, each, checkpoints))
            every.append(_Measured(file, evaluation, measured))
    return every


def _is_of(file: EvalFile, checkpoint: CheckpointRef, checkpoints: Sequence[CheckpointRef]) -> bool:
    """Is the evaluation one of these weights? Best and last of the same epoch share theirs."""
    if file.epoch != checkpoint.epoch:
        return False
    siblings = [other for other in checkpoints if other.suffix == checkpoint.suffix]
    shared = any(other.same_weights for other in siblings)
    return file.checkpoint == checkpoint.name or (
        shared and file.checkpoint in [other.name for other in siblings]
    )


def _fitting(every: Iterable[_Measured], recipe: Recipe, remarks: list[str]) -> list[_Measured]:
    """Those on the run's own data, all of it, and on weights that are still there."""
    fitting, limited = [], []
    for each in every:
        if each.file.data != recipe.data.name:
            remarks.append(
                f"{each.name} is on other data ({each.file.data}) and is not part of this report"
            )
        elif each.evaluation.limit is not None:
            limited.append(f"{each.name} ({each.evaluation.limit})")
        elif not each.checkpoints:
            remarks.append(
                f"{each.name} measured {each.file.checkpoint} at epoch {each.file.epoch}, which "
                "further training has replaced; it is not part of this report"
            )
        else:
            fitting.append(each)
    if limited:
        remarks.append(
            "accuracies on some of the test images are not part of this report: "
            f"{', '.join(limited)}"
        )
    return fitting


def _newest_results(evaluations: Iterable[_Measured]) -> tuple[AttackSummary, ...]:
    newest: dict[tuple[str, str, Threat | None], AttackSummary] = {}
    for measured in evaluations:  # oldest first, so that newer ones replace them
        for checkpoint in measured.checkpoints:
            for result in _results_in(measured, checkpoint.name):
                newest[result.checkpoint, result.label, result.threat] = result
    return tuple(newest.values())


def _newest_diagnostics(
    every: Iterable[_Measured], recipe: Recipe, remarks: list[str]
) -> dict[str, SavedDiagnostic]:
    """Each diagnostic from the newest file that has it, also of some of the test images: it says of
    how many."""
    newest: dict[str, SavedDiagnostic] = {}
    for measured in every:
        if not measured.checkpoints or measured.file.data != recipe.data.name:
            continue
        for name, diagnostic in DIAGNOSTICS.items():
            if not measured.file.has_diagnostic(name):
                continue
            content = measured.file.diagnostic(name)
            title, file = measured.checkpoints[0].title, measured.file.path.name
            try:
                result = diagnostic.result(content)
            except (LookupError, TypeError, ValueError, AttributeError, RpatError):
                remarks.append(f"the {name} in {measured.name} cannot be read and was left out")
                continue
            newest[name] = SavedDiagnostic(title, file, content, result)
    return {name: newest[name] for name in DIAGNOSTICS if name in newest}


def _results_in(measured: _Measured, checkpoint: str) -> Iterator[AttackSummary]:
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
            **origin,
        )


def _remarks_on_training(recipe: Recipe, epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(epochs) < recipe.epochs:
        return [f"the training is not complete: {len(epochs)} of {recipe.epochs} epochs"]
    return []


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
