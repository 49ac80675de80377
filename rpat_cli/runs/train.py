"""A training run from recipe to report: what `rpat train` calls and notebooks import.

A run is one session of training, or several when it is stopped and resumed (`runs/resume.py`). The
last one evaluates the checkpoints on the test set and writes the report.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.data.base import Dataset
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.callbacks import EpochLines, MetricsLog, Validation
from rpat_cli.engine.compute import Compute, resolve_compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import Interrupted
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.load import load_weights
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import flag_for
from rpat_cli.records.files import write_whole
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.write import write_report
from rpat_cli.runs.build import (
    architecture_for,
    build_data,
    build_extra,
    build_loop,
    build_threat,
)
from rpat_cli.runs.checkpoints import CheckpointWriter, saved_form
from rpat_cli.runs.final_evaluation import evaluate_checkpoints
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import create_run
from rpat_cli.runs.target import limited, load_sources
from rpat_cli.signals import StopSignals

VALIDATION_BATCH = 250
"""Images per pass in validation. It follows neither device nor `--jobs`, so that which epoch is the
best does not depend on them."""


@dataclass(frozen=True)
class Inputs:
    """What a training needs besides its folder."""

    recipe: Recipe
    compute: Compute
    data: Dataset
    extra: TensorSplit | None

    @classmethod
    def of(cls, recipe: Recipe) -> "Inputs":
        """Choose the device and read the data. Raises `ConfigError` and `DataError`."""
        compute = resolve_compute(recipe.device, recipe.precision)
        data = build_data(recipe.data, recipe.seed)
        return cls(recipe, compute, data, build_extra(recipe.data.extra, data))

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_for(self.recipe, self.data)


def train_run(
    recipe: Recipe,
    *,
    out: Path | None = None,
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener | None = None,
) -> RunFolder:
    """Train from scratch in a new run folder, evaluate the best and the last checkpoint on the test
    set, and write the report.

    `stop_after` ends the session after that many epochs, to be resumed later. `jobs` processes
    share the evaluation, see `EvalOptions`. Raises `RpatError`s: of the recipe, data or run folder,
    and of divergence; `Interrupted` after a signal, with everything saved.
    """
    # Whatever can be wrong is found before the folder is made, which a mistake would leave empty,
    # and before the training, which would be in vain.
    inputs = Inputs.of(recipe)
    inputs.architecture.build()
    load_sources(parse_suite(recipe.eval), inputs.architecture, recipe)
    folder = create_run(recipe, out)
    write_recipe(folder, recipe)
    with folder.training():
        return train_session(
            inputs, folder, stop_after=stop_after, jobs=jobs, listener=listener or Listener()
        )


def train_session(
    inputs: Inputs,
    folder: RunFolder,
    *,
    state: dict[str, Any] | None = None,
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener,
) -> RunFolder:
    """Train until the last epoch is done or the session ends, in a folder that no other process is
    training in; after the last epoch, evaluate and report.

    `state` is the content of the checkpoint to resume from, if there is one. Raises as `train_run`
    does.
    """
    listener = _also_logging(listener, folder)
    seed_everything(inputs.recipe.seed)
    model = inputs.compute.place(inputs.architecture.build())
    with StopSignals() as signals:

        def should_stop(loop: TrainLoop) -> bool:
            asked = stop_after is not None and loop.epoch >= stop_after
            return asked or signals.received is not None

        loop = _loop(inputs, folder, model, listener, should_stop)
        if state is not None:
            load_weights(model, state["model"], str(folder.checkpoint("last")))
            loop.load_state_dict({"model": state["model"], **state["training"]})
        finished = loop.run()
    go_on = f"Go on with: rpat train --resume {folder.path}{flag_for(inputs.recipe)}"
    if signals.received is not None:
        # Also if it came in the last epoch: an evaluation that began now might be killed.
        where = f"in epoch {loop.epoch + 1} of {loop.epochs}"
        if finished:
            where = "after the last epoch"
        raise Interrupted(f"stopped {where}; everything is saved. {go_on}", signals.exit_code)
    if not finished:
        listener.say(f"stopped after epoch {loop.epoch} as asked. {go_on}")
        return folder
    evaluate_checkpoints(inputs.recipe, folder, inputs.data, jobs, listener)
    write_report(folder)
    return folder


def _loop(
    inputs: Inputs,
    folder: RunFolder,
    model: nn.Module,
    listener: Listener,
    should_stop: Callable[[TrainLoop], bool],
) -> TrainLoop:
    recipe = inputs.recipe
    writer = CheckpointWriter(recipe, inputs.architecture, inputs.data.class_names, folder)
    validate = _validator(recipe, inputs.data, inputs.compute)
    validation = Validation(validate, recipe.validation.every, writer.save_best)
    callbacks = [
        validation,
        MetricsLog(folder.metrics),
        *listener.callbacks,
        # Last, so that a checkpoint holds what all others remember of the epoch.
        *writer.callbacks(validation),
    ]
    return build_loop(
        recipe, inputs.data, model, inputs.compute, callbacks, should_stop, inputs.extra
    )


def write_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Write the resolved recipe, with which the run can be repeated. Raises `RunFolderError`."""
    header = f"Repeat this run: rpat train --config {folder.recipe}{flag_for(recipe)}"
    write_whole(folder.recipe, to_yaml(saved_form(recipe, folder), header))


def _also_logging(listener: Listener, folder: RunFolder) -> Listener:
    """A listener that also writes every message and a line for every epoch to the run's log."""

    def log(text: str) -> None:
        with folder.log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    def say(text: str) -> None:
        log(text)
        listener.say(text)

    return Listener(say, (*listener.callbacks, EpochLines(log)), listener.on_progress)


def _validator(
    recipe: Recipe, data: Dataset, compute: Compute
) -> Callable[[nn.Module], dict[str, float]]:
    """From a model to its clean and robust accuracy (fractions) on the validation images."""
    limit = recipe.validation.limit
    images = data.val if limit is None else limited(data.val, limit)
    x, y = images.tensors()
    specs = parse_suite(f"clean,pgd-{recipe.validation.steps}")
    threat = build_threat(recipe)

    def validate(model: nn.Module) -> dict[str, float]:
        result = evaluate(
            model,
            x,
            y,
            specs,
            threat,
            batch_size=VALIDATION_BATCH,
            device=compute.device,
            seed=recipe.seed,
        )
        clean, robust = result.results
        return {"clean_acc": clean.accuracy.value, "robust_acc": robust.accuracy.value}

    return validate
