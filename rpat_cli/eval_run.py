"""An evaluation from checkpoint to JSON: what `rpat eval` calls, and what ends a training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.build import Architecture, build_data, build_threat, load_weights
from rpat_cli.config import Recipe
from rpat_cli.data.base import Dataset
from rpat_cli.engine.checkpoint import load_checkpoint
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.errors import CheckpointError, Interrupted
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.listener import Listener
from rpat_cli.recipe_io import Layer, resolve
from rpat_cli.reports.report import write_report
from rpat_cli.run_folder import RunFolder, environment, is_run, newest_run, open_run, write_whole

EVAL_FORMAT = 1

EVAL_BATCH = 250
"""Images per pass in an evaluation, unless asked otherwise: AutoAttack's own default."""


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, and what its checkpoint says of it. `epoch` counts from 1."""

    model: nn.Module
    architecture: Architecture
    file: Path
    epoch: int
    recipe: Recipe


def load_model(path: Path | str, checkpoint: str = "best") -> SavedModel:
    """The model of a checkpoint file, or of a run folder (its `best` or `last` epoch), in eval mode on the CPU.

    Raises `CheckpointError` or `RunFolderError` for what is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    file = open_run(path).checkpoint(checkpoint) if path.is_dir() else path
    content = load_checkpoint(file)
    architecture = Architecture.from_dict(content["architecture"])
    model = architecture.build()
    load_weights(model, content["model"], str(file))
    return SavedModel(model.eval(), architecture, file, content["epoch"], Recipe.model_validate(content["recipe"]))


def eval_run(
    target: Path | None,
    specs: Sequence[AttackSpec],
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    batch_size: int = EVAL_BATCH,
    listener: Listener | None = None,
) -> tuple[Evaluation, Path]:
    """Evaluate a run folder, a checkpoint file, or (`None`) the newest run, on the test set of its recipe.

    `changes` are recipe layers: another threat, data root or device. Returns the evaluation and the JSON file that
    holds it; a run's report is written anew.
    """
    saved = load_model(target if target is not None else newest_run().path, checkpoint)
    recipe = _with_changes(saved.recipe, changes)
    data = build_data(recipe.data, recipe.seed)
    _check_fit(saved, data)
    evaluation, file = evaluate_checkpoint(saved, data, specs, recipe, batch_size, listener or Listener())
    folder = run_of(saved.file)
    if folder is not None and folder.metrics.exists():
        write_report(folder)
    return evaluation, file


def _with_changes(recipe: Recipe, changes: Sequence[Layer]) -> Recipe:
    """The run's recipe with changes; with another norm but no eps, eps follows the norm as it does in training."""
    values = recipe.model_dump(mode="json")
    norms = [layer.values["threat"]["norm"] for layer in changes if "norm" in layer.values.get("threat", {})]
    if norms and norms[-1] != recipe.threat.norm:
        values["threat"] = {}
        values["attack"]["step_size"] = None
    return resolve([Layer("the run's recipe", values), *changes])


def _check_fit(saved: SavedModel, data: Dataset) -> None:
    shape, classes = saved.architecture.shape, saved.architecture.classes
    if data.shape != shape or len(data.class_names) != classes:
        raise CheckpointError(
            f"{saved.file} takes images of shape {shape} in {classes} classes; the data set has {data.shape} in "
            f"{len(data.class_names)}. Choose the data set that the model was trained on with --data."
        )


def run_of(file: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    root = file.resolve().parent.parent
    return RunFolder(file.parent.parent) if is_run(root) else None


def evaluate_checkpoint(
    saved: SavedModel,
    data: Dataset,
    specs: Sequence[AttackSpec],
    recipe: Recipe,
    batch_size: int,
    listener: Listener,
) -> tuple[Evaluation, Path]:
    """Run the attacks on the whole test set in float32 and write the JSON file. Raises `Interrupted` on Ctrl-C."""
    compute = resolve_compute(recipe.device, "fp32")
    x, y = data.test.tensors()
    threat = build_threat(recipe)
    try:
        evaluation = evaluate(
            compute.place(saved.model),
            x,
            y,
            specs,
            threat,
            batch_size=batch_size,
            device=compute.device,
            seed=recipe.seed,
            on_progress=listener.on_progress,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            f"evaluation of {saved.file} stopped; the model is untouched. Evaluate again: rpat eval", 130
        ) from None
    return evaluation, _write(saved, data, threat, recipe, str(compute.device), evaluation)


def _write(
    saved: SavedModel, data: Dataset, threat: Threat, recipe: Recipe, device: str, evaluation: Evaluation
) -> Path:
    folder = run_of(saved.file) or RunFolder(saved.file.parent)
    record: dict[str, Any] = {
        "format": EVAL_FORMAT,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "environment": environment(),
        "device": device,
        "checkpoint": saved.file.stem,
        "epoch": saved.epoch,
        "model": saved.architecture.to_dict(),
        "data": {
            "name": data.spec.name,
            "split": "test",
            "n": len(data.test),
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
        },
        "threat": {"norm": threat.norm, "eps": threat.eps},
        "seed": recipe.seed,
        **evaluation.to_dict(),
    }
    stem = f"{saved.file.stem}_{threat.norm}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    path = folder.new_eval(stem)
    write_whole(path, json.dumps(record, indent=1))
    return path
