"""A training run from recipe to report: what `rpat train` calls and notebooks import.

A run is one session of training, or several when it is stopped and resumed (`runs/resume.py`). The
last one evaluates the checkpoints on the test set and writes the report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli.data.base import Dataset
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.callbacks import MetricsLog, Validation
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import Interrupted
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.mistakes import doubts
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.recipe.trust import flag_for
from rpat_cli.records.files import write_whole
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment, how_to_repeat, segment_of, with_next
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.reports.write import write_report
from rpat_cli.runs.build import (
    architecture_for,
    build_data,
    build_extra,
    build_loop,
    build_threat,
    compute_for,
)
from rpat_cli.runs.checkpoints import CheckpointWriter, saved_form
from rpat_cli.runs.final_evaluation import evaluate_checkpoints
from rpat_cli.runs.first_pass import try_network
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import create_run
from rpat_cli.runs.restore import restore
from rpat_cli.runs.run_log import also_logging, as_text, logging_errors, writer
from rpat_cli.runs.target import limited, load_sources
from rpat_cli.signals import StopSignals
from rpat_cli.user_code import ascribed

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
        compute = compute_for(recipe)
        data = build_data(recipe.data, recipe.seed)
        return cls(recipe, compute, data, build_extra(recipe.data.extra, data))

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_for(self.recipe, self.data)

    @cached_property
    def images(self) -> dict[str, str]:
        """The fingerprints of all images that the training sees, by where they come from."""
        extra = {} if self.extra is None else {"data.extra": self.extra.fingerprint()}
        return {"data": self.data.train_fingerprint, **extra}

    def segments(
        self, state: Mapping[str, Any] | None = None, before: Sequence[Segment] = ()
    ) -> list[Segment]:
        """Those of the run once it goes on here: those before, and one from where the content of
        its last checkpoint ends."""
        epoch, step = (state["training"][key] for key in ("epoch", "step")) if state else (0, 0)
        device = self.compute.device.type
        threads = torch.get_num_threads() if device == "cpu" else None
        recipe = self.recipe.model_dump(mode="json")
        precision = self.compute.precision
        new = segment_of(recipe, epoch, step, device=device, threads=threads, precision=precision)
        return with_next(before, new)


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
    try_network(inputs.architecture.build(), inputs.architecture, recipe, len(inputs.data.train))
    load_sources(parse_suite(recipe.eval), inputs.architecture, recipe)
    folder = create_run(recipe, out)
    segments = inputs.segments()
    write_recipe(folder, recipe, segments)
    with folder.training(), logging_errors(folder):
        for label, text in summary(recipe).items():
            writer(folder)(f"{label:>9}  {text}")  # the console has shown it already
        return train_session(
            inputs,
            folder,
            segments=segments,
            stop_after=stop_after,
            jobs=jobs,
            listener=also_logging(listener or Listener(), folder),
        )


def train_session(
    inputs: Inputs,
    folder: RunFolder,
    *,
    segments: Sequence[Segment],
    state: dict[str, Any] | None = None,
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener,
) -> RunFolder:
    """Train until the last epoch is done or the session ends, in a folder that no other process is
    training in; after the last epoch, evaluate and report.

    `segments` are those of the run, this one included. `state` is the content of the checkpoint to
    resume from, if there is one. Raises as `train_run` does.
    """
    for remark in inputs.data.remarks:
        listener.say(f"note: {remark}")
    for doubt in doubts(inputs.recipe):
        listener.say(doubt)
    seed_everything(inputs.recipe.seed)
    model = inputs.compute.place(inputs.architecture.build())
    with ascribed(model), StopSignals() as signals:

        def should_stop(loop: TrainLoop) -> bool:
            asked = stop_after is not None and loop.epoch >= stop_after
            return asked or signals.received is not None

        loop = _loop(inputs, folder, segments, model, listener, should_stop)
        if state is not None:
            restore(loop, state, folder.checkpoint("last"))
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
    report = write_report(folder)
    writer(folder)(as_text(report_table(report), remarks_text(report.remarks)))
    return folder


def _loop(
    inputs: Inputs,
    folder: RunFolder,
    segments: Sequence[Segment],
    model: nn.Module,
    listener: Listener,
    should_stop: Callable[[TrainLoop], bool],
) -> TrainLoop:
    recipe = inputs.recipe
    names = inputs.data.class_names
    saver = CheckpointWriter(recipe, inputs.architecture, names, inputs.images, folder, segments)
    validate = _validator(recipe, inputs.data, inputs.compute)
    validation = Validation(validate, recipe.validation.every, saver.save_best)
    callbacks = [
        validation,
        MetricsLog(folder.metrics),
        *listener.callbacks,
        # Last, so that a checkpoint holds what all others remember of the epoch.
        *saver.callbacks(validation),
    ]
    return build_loop(
        recipe, inputs.data, model, inputs.compute, callbacks, should_stop, inputs.extra
    )


def write_recipe(folder: RunFolder, recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Write the resolved recipe, under a head that says how to repeat the run, or why that cannot
    be done. Raises `RunFolderError`."""
    head = how_to_repeat(segments, folder.path, folder.recipe, flag_for(recipe))
    write_whole(folder.recipe, to_yaml(saved_form(recipe, folder), "\n".join(head)))


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
