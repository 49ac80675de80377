"""A training run from recipe to report: what `rpat train` calls and notebooks import.

A run is one session of training, or several when it is stopped and resumed (`runs/resume.py`). The
last one evaluates the checkpoints on the test set and writes the report.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rpat_cli.engine.callback import Callback
from rpat_cli.engine.callbacks import MetricsLog
from rpat_cli.engine.compute import seed_everything
from rpat_cli.engine.distributed import ALONE, Ranks
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import Interrupted, LostRankError
from rpat_cli.evaluation.parallel.group import leave
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.parallel.ranks import leading
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.missing import check_networks
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.mistakes import doubts
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.recipe.trust import Trust, flag_for, trust
from rpat_cli.records.files import write_whole
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment, how_to_repeat
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.reports.write import write_report
from rpat_cli.runs.build import build_loop
from rpat_cli.runs.checkpoints import CheckpointWriter, Origins, saved_form
from rpat_cli.runs.final_evaluation import evaluate_checkpoints
from rpat_cli.runs.first_pass import try_network, try_parts
from rpat_cli.runs.inputs import Inputs, guarding, validating
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import create_run
from rpat_cli.runs.precision import how_to_keep, say_choice
from rpat_cli.runs.restore import restore
from rpat_cli.runs.run_log import also_logging, as_text, logging_errors, writer
from rpat_cli.runs.start import begun_with, with_fitted_start
from rpat_cli.runs.target import load_sources, with_located_eval
from rpat_cli.runs.tracked import report_results, tracking
from rpat_cli.signals import StopSignals, exit_code
from rpat_cli.tracking import as_flags
from rpat_cli.tracking.following import Following
from rpat_cli.user_code import ascribed

Begun = Callable[[RunFolder], None]
"""What takes the folder of a run that has just begun, or gone on."""


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
    check_networks(recipe)
    recipe, start = begun_with(with_located_eval(recipe))
    inputs = Inputs.of(recipe, ranks, start)
    inputs = with_fitted_start(inputs)
    try_network(inputs.architecture.build(), inputs.architecture, recipe, inputs.smallest_slice)
    try_parts(recipe, inputs.architecture)
    load_sources(parse_suite(recipe.eval), inputs.architecture, recipe)
    folder = create_run(recipe, out)
    segments = inputs.segments()
    write_recipe(folder, recipe, segments)
    begun(folder)
    with folder.training(), logging_errors(folder):
        for label, text in summary(recipe).items():
            writer(folder)(f"{label:>9}  {text}")  # the console has shown it already
        listener = also_logging(listener or Listener(), folder)
        say_choice(inputs, listener.say)
        return train_session(
            inputs,
            folder,
            segments=segments,
            stop_after=stop_after,
            jobs=jobs,
            listener=listener,
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
    flags = flag_for(inputs.recipe) + as_flags(listener.trackers)
    go_on = f"Go on with: rpat train --resume {folder.path}{flags}"
    try:
        with tracking(folder, inputs.recipe, listener) as following:
            return _whole_session(
                inputs, folder, segments, state, stop_after, jobs, listener, following, go_on
            )
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
    following: Following,
    go_on: str,
) -> RunFolder:
    file = folder.checkpoint("last")
    if inputs.ranks.size > 1:
        inputs.ranks.from_first(Assignment.of(inputs, folder, state, stop_after))
    origins = Origins(inputs.start, state, listener.say)
    names = inputs.data.class_names
    saver = CheckpointWriter(
        inputs.recipe, inputs.architecture, names, inputs.images, folder, segments, origins
    )
    validation = validating(inputs, saver.save_best)
    callbacks = [
        origins,  # first, before the listener draws its progress
        *guarding(inputs, listener.say),
        validation,
        MetricsLog(folder.metrics),
        *listener.callbacks,
        following,
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
    with leading(joined=True) if inputs.ranks.size > 1 else nullcontext() as others:
        evaluate_checkpoints(inputs.recipe, folder, inputs.data, jobs, listener, others)
    _report(folder)
    report_results(following, folder, stretch.epoch)
    return folder


def _report(folder: RunFolder) -> None:
    report = write_report(folder)
    writer(folder)(as_text(report_table(report), remarks_text(report.remarks)))


@dataclass(frozen=True)
class Assignment:
    """What rank 0 tells the others of the training that they share: the recipe as plain builtins,
    in the precision of rank 0, the fingerprints of its images, the content of the checkpoint `file`
    if it resumes, after how many epochs to stop, the threads of each rank, and what the user has
    answered for."""

    recipe: dict[str, Any]
    images: Mapping[str, str]
    file: Path
    state: dict[str, Any] | None
    stop_after: int | None
    threads: int = field(default_factory=torch.get_num_threads)
    trust: Trust = field(default_factory=trust)

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        folder: RunFolder,
        state: dict[str, Any] | None,
        stop_after: int | None,
    ) -> "Assignment":
        recipe = saved_form(inputs.recipe, folder).model_dump(mode="json")
        recipe["precision"] = inputs.compute.precision  # whatever the others' processors are
        return cls(recipe, inputs.images, folder.checkpoint("last"), state, stop_after)


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
    built = inputs.architecture.build()
    if inputs.start is not None:
        inputs.start.put_into(built.net)
    model = inputs.compute.place(built)
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
        for network in loop.networks.by_name().values():
            ranks.copy_from_first(network.state_dict().values())
        if inputs.recipe.sync_bn:  # after its average was copied, which never trains
            ranks.synchronize_batchnorm(model)
        if state is not None:
            restore(loop, state, file)
        finished = loop.run()
        signal = signaled()  # which also waits for rank 0, until all is saved
    if ranks.size > 1 and (signal or not finished):
        leave()
    return Stretch(loop.epoch, finished, signal or None)


def write_recipe(folder: RunFolder, recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Write the resolved recipe, under a head that says how to repeat the run, or why that cannot
    be done. Raises `RunFolderError`."""
    head = how_to_repeat(segments, folder.path, folder.recipe, flag_for(recipe))
    head += how_to_keep(recipe, segments)
    write_whole(folder.recipe, to_yaml(saved_form(recipe, folder), "\n".join(head)))
