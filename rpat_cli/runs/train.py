"""A training run from recipe to report: what `rpat train` calls and notebooks import.

A run is one session of training, or several when it is stopped and resumed (`runs/resume.py`). The
last one evaluates the checkpoints on the test set and writes the report.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli.data.base import Dataset
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.callback import Callback
from rpat_cli.engine.callbacks import MetricsLog, Validation
from rpat_cli.engine.compute import Compute, resolve_compute, seed_everything
from rpat_cli.engine.distributed import ALONE, Ranks, parts_of
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import Interrupted, LostRankError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.group import leave, own_gpu
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.parallel.ranks import Together, leading
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.mistakes import doubts
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.recipe.trust import flag_for
from rpat_cli.records.files import write_whole
from rpat_cli.records.metrics import EpochRecord
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
)
from rpat_cli.runs.checkpoints import CheckpointWriter, saved_form
from rpat_cli.runs.final_evaluation import evaluate_checkpoints
from rpat_cli.runs.first_pass import try_network
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import create_run
from rpat_cli.runs.restore import restore
from rpat_cli.runs.run_log import also_logging, as_text, logging_errors, writer
from rpat_cli.runs.target import limited, load_sources
from rpat_cli.signals import StopSignals, exit_code
from rpat_cli.user_code import ascribed

Begun = Callable[[RunFolder], None]

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
    ranks: Ranks = ALONE

    @classmethod
    def of(cls, recipe: Recipe, ranks: Ranks = ALONE) -> "Inputs":
        """Choose the device and read the data. Raises `ConfigError` and `DataError`; the former
        also for batches that the ranks cannot share."""
        compute = resolve_compute(recipe.device, recipe.precision)
        if ranks.size > 1 and compute.device.type == "cuda":
            torch.cuda.set_device(own_gpu())  # from here on "cuda" means this one
        data = build_data(recipe.data, recipe.seed)
        inputs = cls(recipe, compute, data, build_extra(recipe.data.extra, data), ranks)
        inputs.smallest_slice  # noqa: B018  (raises)
        return inputs

    @property
    def smallest_slice(self) -> int:
        """The fewest images that a forward pass of the training gets. Raises `ConfigError` if that
        is none."""
        images = min(self.recipe.batch_size, len(self.data.train))
        return parts_of(images, self.recipe.accumulate, self.ranks)[-1] // self.ranks.size

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
        new = segment_of(recipe, epoch, step, device=device, threads=threads, ranks=self.ranks.size)
        return with_next(before, new)


def train_run(
    recipe: Recipe,
    *,
    out: Path | None = None,
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener | None = None,
    ranks: Ranks = ALONE,
    begun: Begun = lambda folder: None,  # noqa: ARG005
) -> RunFolder:
    """Train from scratch in a new run folder, evaluate the best and the last checkpoint on the test
    set, and write the report.

    `stop_after` ends the session after that many epochs, to be resumed later. `jobs` processes
    share the evaluation, see `EvalOptions`; of several `ranks` this is rank 0, the others are in
    `rpat_cli.runs.assist`. `begun` is called with the folder once it is that of a run. Raises
    `RpatError`s: of the recipe, data or run folder, and of divergence; `Interrupted` after a
    signal, with everything saved.
    """
    # Whatever can be wrong is found before the folder is made, which a mistake would leave empty,
    # and before the training, which would be in vain.
    inputs = Inputs.of(recipe, ranks)
    try_network(inputs.architecture.build(), inputs.architecture, recipe, inputs.smallest_slice)
    load_sources(parse_suite(recipe.eval), inputs.architecture, recipe)
    folder = create_run(recipe, out)
    segments = inputs.segments()
    write_recipe(folder, recipe, segments)
    begun(folder)
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
    go_on = f"Go on with: rpat train --resume {folder.path}{flag_for(inputs.recipe)}"
    try:
        return _whole_session(inputs, folder, segments, state, stop_after, jobs, listener, go_on)
    except LostRankError as error:
        raise LostRankError(f"{error} The last checkpoint is kept. {go_on}") from None


def _whole_session(
    inputs: Inputs,
    folder: RunFolder,
    segments: Sequence[Segment],
    state: dict[str, Any] | None,
    stop_after: int | None,
    jobs: Jobs,
    listener: Listener,
    go_on: str,
) -> RunFolder:
    file = folder.checkpoint("last")
    if inputs.ranks.size > 1:
        recipe = saved_form(inputs.recipe, folder).model_dump(mode="json")
        threads = torch.get_num_threads()
        inputs.ranks.from_first(Assignment(recipe, inputs.images, file, state, stop_after, threads))
    names = inputs.data.class_names
    saver = CheckpointWriter(
        inputs.recipe, inputs.architecture, names, inputs.images, folder, segments
    )
    validation = validating(inputs, saver.save_best)
    callbacks = [
        validation,
        MetricsLog(folder.metrics),
        *listener.callbacks,
        # Last, so that a checkpoint holds what all others remember of the epoch.
        *saver.callbacks(validation),
    ]
    stretch = train_stretch(inputs, callbacks, state, file, stop_after)
    if stretch.signal is not None:
        # Also if it came in the last epoch: an evaluation that began now might be killed.
        where = f"in epoch {stretch.epoch + 1} of {inputs.recipe.epochs}"
        if stretch.finished:
            where = "after the last epoch"
        raise Interrupted(
            f"stopped {where}; everything is saved. {go_on}", exit_code(stretch.signal)
        )
    if not stretch.finished:
        listener.say(f"stopped after epoch {stretch.epoch} as asked. {go_on}")
        return folder
    shared = inputs.ranks.size > 1
    with leading(joined=True) if shared else nullcontext() as others:
        evaluate_checkpoints(inputs.recipe, folder, inputs.data, jobs, listener, others)
    report = write_report(folder)
    writer(folder)(as_text(report_table(report), remarks_text(report.remarks)))
    return folder


@dataclass(frozen=True)
class Assignment:
    """What rank 0 tells the others of the training that they share: the recipe as plain builtins,
    the fingerprints of its images, the content of the checkpoint `file` if it resumes, after how
    many epochs to stop, and the threads of each rank."""

    recipe: dict[str, Any]
    images: Mapping[str, str]
    file: Path
    state: dict[str, Any] | None
    stop_after: int | None
    threads: int


@dataclass(frozen=True)
class Stretch:
    """How a stretch of training has ended: after `epoch` epochs, with the last one or before it,
    and the number of the signal that came to any rank."""

    epoch: int
    finished: bool
    signal: int | None


def train_stretch(
    inputs: Inputs,
    callbacks: Sequence[Callback],
    state: Mapping[str, Any] | None,
    file: Path,
    stop_after: int | None,
) -> Stretch:
    """Train until the last epoch is done, a signal has come to any rank, or `stop_after` epochs are
    done; every rank calls this. `state` is the content of the checkpoint `file`, to resume from."""
    seed_everything(inputs.recipe.seed)
    ranks = inputs.ranks.on(inputs.compute.device)
    model = inputs.compute.place(inputs.architecture.build())
    ranks.copy_from_first(model.state_dict().values())
    with ascribed(model), StopSignals() as signals:

        def signaled() -> int:
            """0, or the signal that has come to any rank. Not noted in `signals`, where a second
            Ctrl-C would be taken for one more."""
            return ranks.highest(signals.received or 0)

        def should_stop(loop: TrainLoop) -> bool:
            asked = stop_after is not None and loop.epoch >= stop_after
            return bool(signaled()) or asked

        loop = build_loop(
            inputs.recipe,
            inputs.data,
            model,
            inputs.compute,
            callbacks,
            should_stop,
            inputs.extra,
            ranks,
        )
        if state is not None:
            restore(loop, state, file)
        finished = loop.run()
        signal = signaled()  # which also waits for rank 0, until all is saved
    if ranks.size > 1 and (signal or not finished):
        leave()
    return Stretch(loop.epoch, finished, signal or None)


def validating(
    inputs: Inputs, on_best: Callable[[str, nn.Module, EpochRecord], None]
) -> Validation:
    """The validations of a training, which all ranks share."""
    validate = _validator(inputs.recipe, inputs.data, inputs.compute, inputs.ranks)
    return Validation(validate, inputs.recipe.validation.every, on_best)


def write_recipe(folder: RunFolder, recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Write the resolved recipe, under a head that says how to repeat the run, or why that cannot
    be done. Raises `RunFolderError`."""
    head = how_to_repeat(segments, folder.path, folder.recipe, flag_for(recipe))
    write_whole(folder.recipe, to_yaml(saved_form(recipe, folder), "\n".join(head)))


def _validator(
    recipe: Recipe, data: Dataset, compute: Compute, ranks: Ranks = ALONE
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
            workers=Together() if ranks.size > 1 else None,
        )
        clean, robust = result.results
        return {"clean_acc": clean.accuracy.value, "robust_acc": robust.accuracy.value}

    return validate
