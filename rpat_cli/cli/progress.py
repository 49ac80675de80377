"""Progress on stderr: live bars on a terminal, plain lines in a pipe or a log, nothing with --quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rpat_cli.cli import console
from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.engine.loop import Callback, EpochRecord, StepRecord, TrainLoop
from rpat_cli.evaluation.chunks import Progress as EvalProgress
from rpat_cli.listener import Listener
from rpat_cli.reports.scores import duration

SILENCE = 30.0
"""Seconds after which a log hears of an attack that is not done yet."""


@contextmanager
def listening(*, quiet: bool) -> Iterator[Listener]:
    """A listener that shows what suits this terminal; bars are taken down at the end."""
    if quiet:
        yield Listener()
    elif console.err.is_terminal:
        with Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console.err,
            transient=True,
        ) as bars:
            yield Listener(
                say=console.say, callbacks=(TrainBars(bars), EpochLines(console.say)), on_progress=EvalBars(bars)
            )
    else:
        yield Listener(say=console.say, callbacks=(EpochLines(console.say),), on_progress=EvalLines())


class TrainBars(Callback):
    """Two bars: the whole training, and the epoch under way with its loss terms and speed."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.whole: TaskID | None = None
        self.epoch: TaskID | None = None
        self.accuracy = ""

    def on_start(self, loop: TrainLoop) -> None:
        steps = loop.steps_per_epoch
        self.whole = self.bars.add_task(
            "training", total=loop.epochs * steps, completed=loop.epoch * steps + loop.step, info=""
        )
        self.epoch = self.bars.add_task("epoch", total=steps, info="")

    def on_step(self, loop: TrainLoop, record: StepRecord) -> None:
        assert self.whole is not None
        assert self.epoch is not None
        terms = "  ".join(f"{name} {value:.3f}" for name, value in record.terms.items() if not name.endswith("_acc"))
        self.bars.update(self.whole, advance=1, info=f"epoch {record.epoch}/{loop.epochs}  {self.accuracy}")
        self.bars.update(
            self.epoch,
            description=f"epoch {record.epoch}",
            completed=record.step,
            info=f"{record.step}/{record.steps}  {terms}  {record.images_per_second:.0f} img/s{_memory()}",
        )

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        if record.validation:
            clean, robust = record.validation["clean_acc"], record.validation["robust_acc"]
            self.accuracy = f"clean {clean:.1%}  robust {robust:.1%}"
        if record.epoch == loop.epochs:
            for task in (self.whole, self.epoch):
                if task is not None:
                    self.bars.remove_task(task)


def _memory() -> str:
    """The device's peak memory, where it has its own."""
    if not torch.cuda.is_available():
        return ""
    return f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


class EvalBars:
    """A bar for each stage of each attack, and a line when it is done."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.lines = EvalLines()
        self.key: tuple[str, str] | None = None
        self.task: TaskID | None = None

    def __call__(self, progress: EvalProgress) -> None:
        if self.key != (progress.label, progress.stage):
            self.key = (progress.label, progress.stage)
            self.task = self.bars.add_task(_name(progress), total=progress.total, info="")
        assert self.task is not None
        self.bars.update(
            self.task,
            completed=progress.done,
            info=f"{progress.done}/{progress.total}  robust {progress.robust_acc:.1%}{_left(progress)}",
        )
        if progress.done >= progress.total:
            self.lines(progress)
        if progress.done >= progress.total:
            self.bars.remove_task(self.task)


class EvalLines:
    """One line for each attack that is done, and for one that takes long now and then one on how far it is."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, progress: EvalProgress) -> None:
        accuracy = f"  {_name(progress):<24} robust {progress.robust_acc:7.2%}"
        if progress.done >= progress.total:
            console.say(f"{accuracy}  after {progress.elapsed:.0f} s")
        elif time.monotonic() - self.said >= SILENCE:
            console.say(f"{accuracy}  so far, {progress.done} of {progress.total} images{_left(progress)}")
        else:
            return
        self.said = time.monotonic()


def _left(progress: EvalProgress) -> str:
    """Of the whole evaluation, as far as that can be foretold."""
    return "" if progress.left is None else f"  all done in about {duration(progress.left)}"


def _name(progress: EvalProgress) -> str:
    if progress.stages == 1:
        return progress.label
    return f"{progress.label} {progress.stage_number}/{progress.stages} {progress.stage}"
