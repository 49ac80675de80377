"""An evaluation from checkpoint to JSON: what `rpat eval` calls, and what ends a training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from rpat_cli.attacks.surrogate import Surrogate, backward_through
from rpat_cli.data.base import Split
from rpat_cli.data.choice import First, Limit, Listed, images_of, recorded
from rpat_cli.data.reading import Images
from rpat_cli.diagnostics import Result
from rpat_cli.engine.compute import Compute
from rpat_cli.errors import ConfigError, Problem, RunFolderError
from rpat_cli.evaluation.arguments import check_files
from rpat_cli.evaluation.evaluate import Evaluation, default_batch_size, evaluate
from rpat_cli.evaluation.parallel.processes import Jobs, Pool, count_jobs, sharing
from rpat_cli.evaluation.parallel.store import ChunkStore
from rpat_cli.evaluation.results import parse_evaluation
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.layers import Layer
from rpat_cli.reports.diagnostics_terminal import for_terminal
from rpat_cli.reports.terminal import (
    evaluation_remarks,
    evaluation_summary,
    evaluation_table,
    remarks_text,
)
from rpat_cli.reports.words import show_threat
from rpat_cli.reports.write import write_report
from rpat_cli.runs.diagnose import Wanted, diagnose, one_per_source, prepare
from rpat_cli.runs.eval_record import Unfinished, numbers_of, write_evaluation, write_gallery
from rpat_cli.runs.identity import finished, identity_of
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.run_log import also_logging, as_text, writer
from rpat_cli.runs.save_adv import Saving, check_free
from rpat_cli.runs.target import (
    OpenedTarget,
    Target,
    located,
    on_its_device,
    open_target,
    placed,
    under_each_threat,
)
from rpat_cli.runs.tracked import track_evaluation
from rpat_cli.signals import stoppable


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is run, whatever is attacked and with what.

    `batch_size`: images attacked at a time (default: follows the device). `jobs`: processes that
    share the work; more than 1 in a script of your own needs its `if __name__ == "__main__":`.
    `limit`: only so many test images, a fixed, stratified subset, or another choice. `again`: how
    to go on after an interruption, for the message. `ranks`: the processes that torchrun has
    started, instead of `jobs`; see `rpat_cli.evaluation.parallel.ranks`. `out`: the folder for the
    results (default: the run's, or one under `EXTERNAL`). `fast`: long attacks search in bfloat16;
    see `rpat_cli.evaluation.fast`. `surrogates`: what gradients pass in place of modules of the
    model; see `rpat_cli.attacks.surrogate`. `save_adv`: a new .npz file for the worst adversarial
    example of each image; see `rpat_cli.records.adversarial_file`.
    """

    batch_size: int | None = None
    jobs: Jobs = 1
    limit: Limit | None = None
    again: str = "evaluate again with the same arguments"
    ranks: Pool | None = None
    out: Path | None = None
    fast: bool = False
    surrogates: Sequence[Surrogate] = ()
    save_adv: Path | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigError` for counts that are none."""
        problems = []
        for key in ("limit", "jobs", "batch_size"):
            value = getattr(self, key)
            if value == ("auto" if key == "jobs" else None) or isinstance(value, First | Listed):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                allowed = "'auto' or a number, at least 1" if key == "jobs" else "at least 1"
                problems.append(Problem(key, f"{value!r} must be a whole number, {allowed}."))
        if problems:
            title = f"{len(problems)} wrong counts" if len(problems) > 1 else ""
            raise ConfigError(*problems, title=title)

    def batch_size_on(self, device: torch.device) -> int:
        return default_batch_size(device) if self.batch_size is None else self.batch_size

    @contextmanager
    def workers(
        self, specs: Sequence[AttackSpec], compute: Compute, samples: int
    ) -> Iterator[Pool | None]:
        """The processes to share evaluations with those attacks; they start in the background."""
        if self.ranks is not None:
            yield self.ranks
            return
        samples = images_of(self.limit, samples)
        chunk_size = self.batch_size_on(compute.device)
        count = count_jobs(self.jobs, specs, compute.device, samples=samples, chunk_size=chunk_size)
        with sharing(count, compute.device) as workers:
            yield workers


@dataclass(frozen=True)
class Measured:
    """What `measure_run` returns: the evaluation, the JSON file that holds it, and the results of
    the diagnostics, by name.

    Under several threats these are of the first; `others` are those of the others, and `union` is
    over all.
    """

    evaluation: Evaluation
    file: Path
    diagnostics: Mapping[str, Result]
    others: tuple[tuple[Evaluation, Path], ...] = ()

    @property
    def union(self) -> ThreatUnion | None:
        evaluations = [self.evaluation, *(evaluation for evaluation, _ in self.others)]
        return ThreatUnion.of(evaluations) if self.others else None


def measure_run(
    target: Target,
    specs: Sequence[AttackSpec],
    *,
    diagnostics: Wanted = MappingProxyType({}),
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    options: EvalOptions | None = None,
    listener: Listener | None = None,
) -> Measured:
    """Evaluate a run folder, a checkpoint file, anything else that `load_model` takes, or a model
    in memory, on the test set of its recipe, and run diagnostics on it; `None` is the newest run.

    `changes` are recipe layers: another threat, data root or device. The target is opened once; a
    run's report is written once, at the end. What is interrupted goes on from there when it is
    started again. Raises what opening the target and preparing the diagnostics raises, and
    `Interrupted` on Ctrl-C and termination signals.
    """
    with on_its_device(target):
        options = options or EvalOptions()
        opened = open_target(target, checkpoint, changes, options.out)
        return _measure(opened, located(specs), diagnostics, options, listener or Listener())


def _measure(
    opened: OpenedTarget,
    specs: Sequence[AttackSpec],
    diagnostics: Wanted,
    options: EvalOptions,
    listener: Listener,
) -> Measured:
    folder = opened.saved.folder
    if folder.log.exists():  # of a run; other models have none
        listener = also_logging(listener, folder)
    # At once: a long evaluation may be for nothing.
    for remark in (*opened.saved.remarks, *opened.data.remarks):
        listener.say(f"note: {remark}")
    opened.test_images(options.limit)  # raises for images that are not there
    if options.save_adv:
        check_free(opened, options.save_adv)
    prepared = prepare(diagnostics, opened, options.limit)
    sources = opened.sources(specs)
    with options.workers(specs, opened.compute, len(opened.data.test)) as workers:
        (evaluation, file), *others = _under_all(opened, specs, options, listener, sources, workers)
    opened = under_each_threat(opened)[0]
    try:
        with backward_through(opened.model, options.surrogates):
            results = diagnose(
                prepared,
                opened,
                file,
                limit=options.limit,
                attacks=specs,
                sources=placed(opened.compute, one_per_source(specs, sources)),
                listener=listener,
            )
    finally:  # a report of the evaluation is due also where a diagnostic was stopped
        if folder.metrics.exists():
            write_report(folder)
    if folder.log.exists():
        writer(folder)(
            as_text(
                evaluation_table(evaluation),
                evaluation_summary(evaluation, opened.data.class_names),
                remarks_text(evaluation_remarks(evaluation)),
                *(for_terminal(result.section()) for result in results.values()),
                f"result: {file}",
            )
        )
    measured = Measured(evaluation, file, results, tuple(others))
    track_evaluation(opened, measured, listener)
    return measured


def _under_all(
    opened: OpenedTarget,
    specs: Sequence[AttackSpec],
    options: EvalOptions,
    listener: Listener,
    sources: Mapping[str, SavedModel],
    workers: Pool | None,
) -> list[tuple[Evaluation, Path]]:
    """An evaluation under each threat. Those that an interrupted run of the same command has
    finished are not measured again: they are newer than the last threat's."""
    *first, last = under_each_threat(opened)
    before = finished(last, _identity(last, specs, sources, options))
    found = []
    for each in first:
        done = finished(each, _identity(each, specs, sources, options))
        if done and (not before or done[-1].age > before[-1].age):
            listener.say(f"resuming: {show_threat(each.threat)} is known, from {done[-1].path}")
            found.append((parse_evaluation(done[-1]), done[-1].path))
        else:
            found.append(evaluate_opened(each, specs, options, listener, sources, workers))
    return [*found, evaluate_opened(last, specs, options, listener, sources, workers)]


def eval_run(
    target: Target,
    specs: Sequence[AttackSpec],
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    options: EvalOptions | None = None,
    listener: Listener | None = None,
) -> tuple[Evaluation, Path]:
    """`measure_run` without diagnostics: the evaluation, and the JSON file that holds it."""
    measured = measure_run(
        target,
        specs,
        checkpoint=checkpoint,
        changes=changes,
        options=options,
        listener=listener,
    )
    return measured.evaluation, measured.file


def evaluate_opened(
    opened: OpenedTarget,
    specs: Sequence[AttackSpec],
    options: EvalOptions,
    listener: Listener,
    sources: Mapping[str, SavedModel] | None = None,
    workers: Pool | None = None,
) -> tuple[Evaluation, Path]:
    """Run the attacks on the test set in float32 and write the JSON file.

    `sources`: the models of transfer attacks (default: they are loaded). Every chunk's result goes
    to disk at once; what is there already of this very evaluation is not run again. Raises
    `Interrupted` on Ctrl-C and termination signals.
    """
    saved, compute = opened.saved, opened.compute
    sources = opened.sources(specs) if sources is None else sources
    identity = _identity(opened, specs, sources, options)
    for known in finished(opened, identity):
        # Only its diagnostics were stopped. One that is complete is measured anew: that was asked.
        if known.pending and known.checkpoint == saved.file.stem:
            listener.say(f"resuming: all attacks are known, from {known.path}")
            return Evaluation.from_dict(known.record), known.path
    store = ChunkStore.open(saved.folder.evals / "partial", identity, listener.say)
    images = opened.test_images(options.limit)
    save = options.save_adv is not None
    unfinished = Unfinished.begun(store, images, specs, save=save, say=listener.say)
    check_files(opened.threat, specs, Images(images))
    with stoppable(
        f"evaluation of {saved.file} stopped; the chunks done are saved. Go on with: "
        f"{options.again}"
    ):
        evaluation = evaluate(
            opened.model,
            Images(images),
            images.labels,
            located(specs),
            opened.threat,
            batch_size=options.batch_size_on(compute.device),
            device=compute.device,
            seed=opened.recipe.seed,
            sources=placed(compute, sources),
            workers=workers,
            on_progress=listener.on_progress,
            on_chunk=unfinished.add,
            keep=unfinished.keep,
            on_remark=listener.say,
            known=unfinished.known,
            fast=options.fast,
            surrogates=options.surrogates,
        )
        if len(images) < len(opened.data.test):
            evaluation = replace(evaluation, limit=recorded(options.limit))
        file = _write(opened, evaluation, images, unfinished, options, listener)
    unfinished.remove()
    return evaluation, file


def _write(
    opened: OpenedTarget,
    evaluation: Evaluation,
    images: Split,
    unfinished: Unfinished,
    options: EvalOptions,
    listener: Listener,
) -> Path:
    """The JSON file, then the examples that were kept."""
    file = write_evaluation(opened, evaluation, unfinished.store.key)
    number = numbers_of(opened.data.test, options.limit)
    try:
        write_gallery(file, unfinished.gallery, evaluation, images, number)
    except RunFolderError as error:  # the result itself is written
        listener.say(f"note: {error}")
    if options.save_adv and unfinished.worst:
        saving = Saving(opened, images, unfinished.worst, evaluation, number)
        listener.say(f"adversarial images: {saving.write(options.save_adv)}")
    return file


def is_evaluated(opened: OpenedTarget, specs: Sequence[AttackSpec], options: EvalOptions) -> bool:
    """Is this very evaluation finished already, its result on disk?"""
    return bool(finished(opened, _identity(opened, specs, opened.sources(specs), options)))


def _identity(
    opened: OpenedTarget,
    specs: Sequence[AttackSpec],
    sources: Mapping[str, SavedModel],
    options: EvalOptions,
) -> dict[str, Any]:
    batch_size = options.batch_size_on(opened.compute.device)
    return identity_of(
        opened,
        specs,
        sources,
        limit=options.limit,
        batch_size=batch_size,
        fast=options.fast,
        saved=options.save_adv is not None,
        surrogates=options.surrogates,
    )
