"""An evaluation from checkpoint to JSON: what `rpat eval` calls, and what ends a training."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli import __version__
from rpat_cli.build import Architecture, build_data, build_threat, load_weights
from rpat_cli.config import Recipe
from rpat_cli.data.base import Dataset, Split
from rpat_cli.data.splits import stratified_choice
from rpat_cli.engine.callbacks import StopSignals
from rpat_cli.engine.checkpoint import checksum, load_checkpoint
from rpat_cli.engine.compute import Compute, resolve_compute
from rpat_cli.errors import CheckpointError, ConfigError, Interrupted
from rpat_cli.evaluation.evaluate import Evaluation, default_batch_size, evaluate
from rpat_cli.evaluation.jobs import Jobs, Workers, count_jobs, sharing
from rpat_cli.evaluation.store import ChunkStore, key_of
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.listener import Listener
from rpat_cli.models.checkpoint_import import is_foreign
from rpat_cli.published import load_published
from rpat_cli.recipe_io import Layer, resolve
from rpat_cli.reports.report import write_report
from rpat_cli.run_folder import RunFolder, environment, is_run, newest_run, open_run, write_whole

EVAL_FORMAT = 1

LIBRARIES = ("torch", "pyautoattack", "autoattack", "foolbox")
"""Whose version may change what an attack finds."""


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is run, which does not alter what is attacked or with what.

    `batch_size`: images attacked at a time (default: follows the device). `jobs`: processes that share the work; more
    than 1 in a script of your own needs its `if __name__ == "__main__":`. `limit`: only so many test images, a fixed,
    stratified subset. `again`: how to go on after an interruption, for the message.
    """

    batch_size: int | None = None
    jobs: Jobs = 1
    limit: int | None = None
    again: str = "evaluate again with the same arguments"

    def batch_size_on(self, device: torch.device) -> int:
        return default_batch_size(device) if self.batch_size is None else self.batch_size

    @contextmanager
    def workers(self, specs: Sequence[AttackSpec], compute: Compute, samples: int) -> Iterator[Workers | None]:
        """The processes to share evaluations with those attacks; they start in the background."""
        samples = samples if self.limit is None else min(samples, self.limit)
        chunk_size = self.batch_size_on(compute.device)
        count = count_jobs(self.jobs, specs, compute.device, samples=samples, chunk_size=chunk_size)
        with sharing(count, compute.device) as workers:
            yield workers


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, and what its checkpoint says of it. `epoch` counts from 1; 0 is unknown."""

    model: nn.Module
    architecture: Architecture
    file: Path
    epoch: int
    recipe: Recipe


def load_model(path: Path | str, checkpoint: str = "best", changes: Sequence[Layer] = ()) -> SavedModel:
    """The model of a checkpoint file, or of a run folder (its `best` or `last` epoch), in eval mode on the CPU.

    A file that other code has saved loads too, if `changes`, layers of a recipe, name its data set. Raises
    `CheckpointError` or `RunFolderError` for what is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    file = open_run(path).checkpoint(checkpoint) if path.is_dir() else path
    if path.is_file() and is_foreign(file):
        published, architecture, recipe = load_published(file, changes)
        return SavedModel(published, architecture, file, 0, recipe)
    if any("model" in layer.values for layer in changes):
        raise ConfigError(f"{file} says itself which network it holds; leave the model out.")
    content = load_checkpoint(file)
    recipe = resolve([Layer(str(file), content["recipe"])])  # before the model, which may be a plugin's
    architecture = Architecture.from_dict(content["architecture"])
    model = architecture.build()
    load_weights(model, content["model"], str(file))
    return SavedModel(model.eval(), architecture, file, content["epoch"], recipe)


def eval_run(
    target: Path | None,
    specs: Sequence[AttackSpec],
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    options: EvalOptions | None = None,
    listener: Listener | None = None,
) -> tuple[Evaluation, Path]:
    """Evaluate a run folder, a checkpoint file, or (`None`) the newest run, on the test set of its recipe.

    `changes` are recipe layers: another threat, data root or device. Returns the evaluation and the JSON file that
    holds it; a run's report is written anew. An interrupted evaluation goes on where it was when it is started again.
    """
    options = options or EvalOptions()
    saved, recipe, data = open_target(target, checkpoint, changes)
    compute = resolve_compute(recipe.device, "fp32")
    with options.workers(specs, compute, len(data.test)) as workers:
        evaluation, file = evaluate_checkpoint(saved, data, specs, recipe, options, listener or Listener(), workers)
    folder = run_of(saved.file)
    if folder is not None and folder.metrics.exists():
        write_report(folder)
    return evaluation, file


def open_target(target: Path | None, checkpoint: str, changes: Sequence[Layer]) -> tuple[SavedModel, Recipe, Dataset]:
    """The model of a run folder, a checkpoint file, or (`None`) the newest run; its recipe with changes; its data.

    Raises what `load_model` and `build_data` raise, and `CheckpointError` when model and data do not fit together.
    """
    saved = load_model(target if target is not None else newest_run().path, checkpoint, changes)
    recipe = _with_changes(saved.recipe, changes)
    data = build_data(recipe.data, recipe.seed)
    _check_fit(saved, data)
    return saved, recipe, data


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
    options: EvalOptions,
    listener: Listener,
    workers: Workers | None = None,
) -> tuple[Evaluation, Path]:
    """Run the attacks on the test set in float32 and write the JSON file.

    Every chunk's result goes to disk at once; what is there already of this very evaluation is not run again. Raises
    `Interrupted` on Ctrl-C and termination signals.
    """
    compute = resolve_compute(recipe.device, "fp32")
    split = data.test if options.limit is None else limited(data.test, options.limit)
    identity = _identity(saved, data, specs, recipe, options, compute)
    store = ChunkStore.open(_folder_of(saved.file).evals / "partial", identity, listener.say)
    x, y = split.tensors()
    with _stoppable(f"evaluation of {saved.file} stopped; the chunks done are saved. Go on with: {options.again}"):
        evaluation = evaluate(
            compute.place(saved.model),
            x,
            y,
            specs,
            build_threat(recipe),
            batch_size=options.batch_size_on(compute.device),
            device=compute.device,
            seed=recipe.seed,
            workers=workers,
            on_progress=listener.on_progress,
            on_chunk=store.add,
            on_remark=listener.say,
            known=store.known,
        )
        if len(split) < len(data.test):
            evaluation = replace(evaluation, limit=options.limit)
        file = _write(saved, data, recipe, str(compute.device), evaluation, store.key)
    store.remove()
    return evaluation, file


def is_evaluated(
    saved: SavedModel, data: Dataset, specs: Sequence[AttackSpec], recipe: Recipe, options: EvalOptions
) -> bool:
    """Is this very evaluation finished already, its result on disk?"""
    identity = _identity(saved, data, specs, recipe, options, resolve_compute(recipe.device, "fp32"))
    return any(_key_in(file) == key_of(identity) for file in _folder_of(saved.file).evals.glob("*.json"))


def _key_in(file: Path) -> str | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not a result that could be relied on
        return None
    return record.get("key") if isinstance(record, dict) else None


def limited(split: Split, limit: int) -> Split:
    """A subset of `limit` images, each class by its share; the same ones every time."""
    labels, left_out = split.labels.cpu(), len(split) - limit
    if left_out <= 0:
        return split
    if left_out < limit:  # `stratified_choice` never takes a whole class, so choose those that stay out
        keep = torch.ones(len(split), dtype=torch.bool)
        keep[stratified_choice(labels, left_out, seed=0)] = False
        return split.subset(keep.nonzero().squeeze(1))
    return split.subset(stratified_choice(labels, limit, seed=0))


def _identity(
    saved: SavedModel,
    data: Dataset,
    specs: Sequence[AttackSpec],
    recipe: Recipe,
    options: EvalOptions,
    compute: Compute,
) -> dict[str, Any]:
    """All that the flags depend on: a chunk is of use to an evaluation of the same identity only."""
    return {
        "weights": checksum([str(saved.model), saved.model.state_dict()]),
        "data": data.fingerprint,
        "limit": options.limit,
        "threat": [recipe.threat.norm, recipe.threat.eps],
        "attacks": [[spec.label, dict(spec.settings)] for spec in specs],
        "batch size": options.batch_size_on(compute.device),
        "seed": recipe.seed,
        "device": compute.device.type,
        "versions": {"rpat": __version__, **{name: _installed(name) for name in LIBRARIES}},
    }


def _installed(name: str) -> str | None:
    try:
        return installed_version(name)
    except PackageNotFoundError:
        return None


class _Stop(KeyboardInterrupt):
    """A signal that asks to stop, as an exception."""

    exit_code = 75


@contextmanager
def _stoppable(message: str) -> Iterator[None]:
    """Ctrl-C and termination signals end the block at once, as `Interrupted` with this message."""

    def stop(number: int, frame: Any) -> None:  # noqa: ARG001
        raise _Stop

    before: dict[int, Callable[[int, Any], Any] | int | None] = {}
    for name in StopSignals.SIGNALS:
        with suppress(AttributeError, ValueError):  # Windows lacks some; outside the main thread none is ours
            if name != "SIGINT":
                number = getattr(signal, name)
                before[number] = signal.signal(number, stop)
    try:
        yield
    except _Stop as stopped:
        raise Interrupted(message, stopped.exit_code) from None
    except KeyboardInterrupt:
        raise Interrupted(message, 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _folder_of(file: Path) -> RunFolder:
    """Where a checkpoint's results go: its run, or the folder that it lies in."""
    return run_of(file) or RunFolder(file.parent)


def _write(saved: SavedModel, data: Dataset, recipe: Recipe, device: str, evaluation: Evaluation, key: str) -> Path:
    threat = evaluation.threat
    record: dict[str, Any] = {
        "format": EVAL_FORMAT,
        "key": key,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "environment": environment(),
        "device": device,
        "checkpoint": saved.file.stem,
        "epoch": saved.epoch,
        "model": saved.architecture.to_dict(),
        "data": {
            "name": data.spec.name,
            "split": "test",
            "n": evaluation.n,
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
        },
        "threat": {"norm": threat.norm, "eps": threat.eps},
        "seed": recipe.seed,
        **evaluation.to_dict(),
    }
    stem = f"{saved.file.stem}_{threat.norm}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    path = _folder_of(saved.file).new_eval(stem)
    write_whole(path, json.dumps(record, indent=1))
    return path
