"""An evaluation from checkpoint to JSON: what `rpat eval` calls, and what ends a training."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from rpat_cli.data.base import Dataset, Split
from rpat_cli.data.splits import limited_choice
from rpat_cli.engine.callbacks import StopSignals
from rpat_cli.engine.compute import Compute, resolve_compute
from rpat_cli.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    Problem,
    RpatError,
    RunFolderError,
)
from rpat_cli.evaluation.evaluate import Evaluation, default_batch_size, evaluate
from rpat_cli.evaluation.parallel.processes import Helpers, Jobs, count_jobs, sharing
from rpat_cli.evaluation.parallel.store import RECORDS, ChunkStore, key_of
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.external import load_external, module_at_hand
from rpat_cli.loading.foreign import is_foreign
from rpat_cli.loading.published import load_published
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.files import write_whole
from rpat_cli.records.run_folder import RunFolder, newest_run, open_run
from rpat_cli.reports.write import write_report
from rpat_cli.runs.build import build_data, build_threat, load_weights
from rpat_cli.runs.environment import environment
from rpat_cli.runs.listener import Listener
from rpat_cli.version import __version__

EVAL_FORMAT = 1

LOOKS_LEFT = "closer_looks_left"
"""Key in an evaluation's JSON while it is looked at more closely: what is still to come."""

Target: TypeAlias = Path | nn.Module | None
"""What is to be evaluated: a name or file that `load_model` takes, a model at hand, or (`None`) the
newest run."""

LIBRARIES = ("torch", "pyautoattack", "autoattack", "foolbox")
"""Whose version may change what an attack finds."""


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is run, which does not alter what is attacked or with what.

    `batch_size`: images attacked at a time (default: follows the device). `jobs`: processes that
    share the work; more than 1 in a script of your own needs its `if __name__ == "__main__":`.
    `limit`: only so many test images, a fixed, stratified subset. `again`: how to go on after an
    interruption, for the message. `ranks`: the processes that torchrun has started, instead of
    `jobs`; see `rpat_cli.evaluation.parallel.ranks`.
    """

    batch_size: int | None = None
    jobs: Jobs = 1
    limit: int | None = None
    again: str = "evaluate again with the same arguments"
    ranks: Helpers | None = None

    def batch_size_on(self, device: torch.device) -> int:
        return default_batch_size(device) if self.batch_size is None else self.batch_size

    @contextmanager
    def workers(
        self, specs: Sequence[AttackSpec], compute: Compute, samples: int
    ) -> Iterator[Helpers | None]:
        """The processes to share evaluations with those attacks; they start in the background."""
        if self.ranks is not None:
            yield self.ranks
            return
        samples = samples if self.limit is None else min(samples, self.limit)
        chunk_size = self.batch_size_on(compute.device)
        count = count_jobs(self.jobs, specs, compute.device, samples=samples, chunk_size=chunk_size)
        with sharing(count, compute.device) as workers:
            yield workers


def load_model(
    path: Path | str, checkpoint: str = "best", changes: Sequence[Layer] = ()
) -> SavedModel:
    """The model of a checkpoint file, or of a run folder (its `best` or `last` epoch), in eval mode
    on the CPU.

    A file that other code has saved, `torchvision:NAME` and `timm:NAME` with their trained weights,
    and the function `FILE.py:FUNCTION` load too, if `changes`, layers of a recipe, name their data
    set. Raises `CheckpointError` or `RunFolderError` for what is missing, damaged, or belongs to
    another model, and what `load_external` raises.
    """
    external = None if Path(path).exists() else load_external(str(path), changes)
    if external is not None:
        return external
    path = Path(path)
    if path.suffix == ".py":
        raise ConfigError(
            Problem(
                "",
                "is a program: name the function in it that returns the model.",
                str(path),
                f"Example: {path}:build",
            )
        )
    is_folder = (
        path.is_dir() if path.exists() else not path.suffix
    )  # what is missing is named after what it looks like
    file = open_run(path).checkpoint(checkpoint) if is_folder else path
    if path.is_file() and is_foreign(file):
        published, architecture, recipe = load_published(file, changes)
        return SavedModel(published, architecture, file, 0, recipe)
    if file.exists() and any("model" in layer.values for layer in changes):
        raise ConfigError(f"{file} says itself which network it holds; leave the model out.")
    content = load_checkpoint(file)
    recipe = resolve(
        [Layer(str(file), content["recipe"])]
    )  # before the model, which may be a plugin's
    architecture = Architecture.from_dict(content["architecture"])
    model = architecture.build()
    load_weights(model, content["model"], str(file))
    return SavedModel(model.eval(), architecture, file, content["epoch"], recipe)


def eval_run(
    target: Target,
    specs: Sequence[AttackSpec],
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    options: EvalOptions | None = None,
    listener: Listener | None = None,
) -> tuple[Evaluation, Path]:
    """Evaluate a run folder, a checkpoint file, anything else that `load_model` takes, or a model
    at hand, on the test set of its recipe; `None` is the newest run.

    `changes` are recipe layers: another threat, data root or device. Returns the evaluation and the
    JSON file that holds it; a run's report is written anew. An interrupted evaluation goes on where
    it was when it is started again.
    """
    options = options or EvalOptions()
    saved, recipe, data = open_target(target, checkpoint, changes)
    compute = resolve_compute(recipe.device, "fp32")
    with options.workers(specs, compute, len(data.test)) as workers:
        evaluation, file = evaluate_checkpoint(
            saved, data, specs, recipe, options, listener or Listener(), workers
        )
    if saved.folder.metrics.exists():
        write_report(saved.folder)
    return evaluation, file


def open_target(
    target: Target, checkpoint: str, changes: Sequence[Layer]
) -> tuple[SavedModel, Recipe, Dataset]:
    """The model of a target as `eval_run` takes it; its recipe with changes; its data.

    Raises what `load_model` and `build_data` raise, and `CheckpointError` when model and data do
    not fit together.
    """
    if isinstance(target, nn.Module):
        saved = module_at_hand(target, changes)
    else:
        saved = load_model(target if target is not None else newest_run().path, checkpoint, changes)
    recipe = _with_changes(saved.recipe, changes)
    data = build_data(recipe.data, recipe.seed)
    _check_fit(saved, data)
    return saved, recipe, data


def _with_changes(recipe: Recipe, changes: Sequence[Layer]) -> Recipe:
    """The run's recipe with changes; with another norm but no eps, eps follows the norm as it does
    in training."""
    values = recipe.model_dump(mode="json")
    norms = [
        layer.values["threat"]["norm"]
        for layer in changes
        if "norm" in layer.values.get("threat", {})
    ]
    if norms and norms[-1] != recipe.threat.norm:
        values["threat"] = {}
        values["attack"]["step_size"] = None
    return resolve([Layer("the run's recipe", values), *changes])


def _check_fit(saved: SavedModel, data: Dataset) -> None:
    shape, classes = saved.architecture.shape, saved.architecture.classes
    if data.shape != shape or len(data.class_names) != classes:
        raise CheckpointError(
            f"{saved.file} takes images of shape {shape} in {classes} classes; the data set has "
            f"{data.shape} in "
            f"{len(data.class_names)}. Choose the data set that the model was trained on with "
            "--data."
        )


def load_sources(
    specs: Sequence[AttackSpec], target: Architecture, recipe: Recipe
) -> dict[str, SavedModel]:
    """The models on which transfer attacks make their images, by the attack's label.

    Raises `ConfigError` for a model that cannot be loaded or takes other images than the target.
    """
    data = [Layer("the target's recipe", {"data": recipe.data.model_dump(mode="json")})]
    sources: dict[str, SavedModel] = {}
    problems = []
    for spec in specs:
        if spec.name != "transfer":
            continue
        try:
            source = load_model(str(spec.settings["source"]), changes=data)
        except RpatError as error:
            problems.append(Problem("", str(error), spec.label))
            continue
        sources[spec.label] = source
        shape, classes = source.architecture.shape, source.architecture.classes
        if (shape, classes) != (target.shape, target.classes):
            message = (
                f"takes images of shape {shape} in {classes} classes, the model to be attacked "
                f"{target.shape} in "
                f"{target.classes}."
            )
            problems.append(Problem("", message, spec.label, "Name a model of the same data set."))
    if problems:
        raise ConfigError(
            *problems, title="these transfer attacks cannot be made" if len(problems) > 1 else ""
        )
    return sources


def evaluate_checkpoint(
    saved: SavedModel,
    data: Dataset,
    specs: Sequence[AttackSpec],
    recipe: Recipe,
    options: EvalOptions,
    listener: Listener,
    workers: Helpers | None = None,
) -> tuple[Evaluation, Path]:
    """Run the attacks on the test set in float32 and write the JSON file.

    Every chunk's result goes to disk at once; what is there already of this very evaluation is not
    run again. Raises `Interrupted` on Ctrl-C and termination signals.
    """
    compute = resolve_compute(recipe.device, "fp32")
    split = data.test if options.limit is None else limited(data.test, options.limit)
    sources = load_sources(specs, saved.architecture, recipe)
    identity = _identity(saved, data, specs, sources, recipe, options, compute)
    if done := _left_unfinished(saved, key_of(identity)):
        listener.say(f"resuming: all attacks are known, from {done}")
        return Evaluation.from_dict(json.loads(done.read_text(encoding="utf-8"))), done
    store = ChunkStore.open(saved.folder.evals / "partial", identity, listener.say)
    x, y = split.tensors()
    with stoppable(
        f"evaluation of {saved.file} stopped; the chunks done are saved. Go on with: "
        f"{options.again}"
    ):
        evaluation = evaluate(
            compute.place(saved.model),
            x,
            y,
            specs,
            build_threat(recipe),
            batch_size=options.batch_size_on(compute.device),
            device=compute.device,
            seed=recipe.seed,
            sources={label: compute.place(source.model) for label, source in sources.items()},
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
    saved: SavedModel,
    data: Dataset,
    specs: Sequence[AttackSpec],
    recipe: Recipe,
    options: EvalOptions,
) -> bool:
    """Is this very evaluation finished already, its result on disk?"""
    sources = load_sources(specs, saved.architecture, recipe)
    identity = _identity(
        saved, data, specs, sources, recipe, options, resolve_compute(recipe.device, "fp32")
    )
    return any(
        _read(file).get("key") == key_of(identity) for file in saved.folder.evals.glob("*.json")
    )


def _left_unfinished(saved: SavedModel, key: str) -> Path | None:
    """The file of this very evaluation, if only the closer looks at the model were interrupted."""
    wanted = {"key": key, "checkpoint": saved.file.stem}
    for file in saved.folder.evals.glob("*.json"):
        record = _read(file)
        if LOOKS_LEFT in record and record.items() >= wanted.items():
            return file
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not a result that could be relied on
        return {}
    return record if isinstance(record, dict) else {}


def limited(split: Split, limit: int) -> Split:
    """A subset of `limit` images, each class by its share; the same ones every time."""
    return split if limit >= len(split) else split.subset(limited_choice(split.labels, limit))


def _identity(
    saved: SavedModel,
    data: Dataset,
    specs: Sequence[AttackSpec],
    sources: Mapping[str, SavedModel],
    recipe: Recipe,
    options: EvalOptions,
    compute: Compute,
) -> dict[str, Any]:
    """All that the flags depend on: a chunk is of use to an evaluation of the same identity
    only."""
    return {
        "weights": saved.fingerprint(),
        "data": data.fingerprint,
        "limit": options.limit,
        "threat": [recipe.threat.norm, recipe.threat.eps],
        "attacks": [[spec.label, dict(spec.settings)] for spec in specs],
        "source models": {label: source.fingerprint() for label, source in sources.items()},
        "batch size": options.batch_size_on(compute.device),
        "seed": recipe.seed,
        "device": compute.device.type,
        "kind of records": RECORDS,
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
def stoppable(message: str) -> Iterator[None]:
    """Ctrl-C and termination signals end the block at once, as `Interrupted` with this message."""

    def stop(number: int, frame: Any) -> None:  # noqa: ARG001
        raise _Stop

    before: dict[int, Callable[[int, Any], Any] | int | None] = {}
    for name in StopSignals.SIGNALS:
        with suppress(
            AttributeError, ValueError
        ):  # Windows lacks some; outside the main thread none is ours
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


def _write(
    saved: SavedModel, data: Dataset, recipe: Recipe, device: str, evaluation: Evaluation, key: str
) -> Path:
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
    path = _new_file(saved.folder, stem)
    try:
        write_whole(path, json.dumps(record, indent=1))
    except RunFolderError:
        path.unlink(missing_ok=True)
        raise
    return path


def _new_file(folder: RunFolder, stem: str) -> Path:
    """An empty file, which holds a name in `evals/` against another evaluation that ends at the
    same moment."""
    try:
        folder.evals.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder.new_eval(stem)
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                return path
    except OSError as error:
        raise RunFolderError(f"cannot write to {folder.evals}: {error.strerror}.") from error
