"""Progress on stderr: live bars on a terminal, plain lines in a pipe or a log, nothing with
--quiet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from rpat_cli.cli import console
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.evaluation.parallel.chunks import Progress as EvalProgress
from rpat_cli.records.metrics import EpochRecord
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.progress_lines import COLUMNS, EvalLines, in_lines, stage_name, time_left
from rpat_cli.text import percent, remaining
from rpat_cli.tracking import Choice

WIDE = 110
"""The fewest terminal columns with room for long bars."""


@contextmanager
def listening(*, quiet: bool, trackers: Sequence[Choice] = ()) -> Iterator[Listener]:
    """A listener that shows progress as this terminal can; bars are removed at the end."""
    if quiet:
        yield Listener(trackers=trackers)
    elif console.err.is_terminal:
        with _bars(console.err) as bars:
            yield Listener(
                say=console.say,
                callbacks=(TrainBars(bars), EpochLines(console.say, COLUMNS)),
                on_progress=EvalBars(bars),
                trackers=trackers,
            )
    else:
        yield replace(in_lines(console.say), trackers=trackers)


class _Info(ProgressColumn):
    """Details of a task: the only column that is cut on a narrow terminal."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["info"], no_wrap=True, overflow="ellipsis")


class _Left(ProgressColumn):
    """The time that a task will still take, by its pace since it `began` at a step: over all of it,
    so that the forecast settles."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields.get("began", task.completed)
        if done <= 0 or not task.elapsed or task.total is None:
            return Text("-:--:--")
        return Text(remaining(task.elapsed / done * (task.total - task.completed)))


def _bars(terminal: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24 if terminal.width >= WIDE else 8),
        TextColumn("left"),
        _Left(),
        _Info(),
        console=terminal,
        transient=True,
    )


class TrainBars(Callback):
    """Two bars: the whole training, and the current epoch with its loss terms and speed."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.whole: TaskID | None = None
        self.epoch: TaskID | None = None
        self.accuracy = ""

    def on_start(self, loop: TrainLoop) -> None:
        steps = loop.steps_per_epoch
        done = loop.epoch * steps + loop.step
        self.whole = self.bars.add_task(
            "training", total=loop.epochs * steps, completed=done, began=done, info=""
        )
        self.epoch = self.bars.add_task("epoch", total=steps, began=loop.step, info="")

    def on_step(self, loop: TrainLoop, record: StepRecord) -> None:
        assert self.whole is not None
        assert self.epoch is not None
        accuracies = f"epoch {record.epoch}/{loop.epochs}  {self.accuracy}"
        self.bars.update(self.whole, advance=1, info=accuracies)
        if record.step == 1:  # its pace is measured from here: validation was between
            self.bars.reset(self.epoch, began=1)
        losses = {name: v for name, v in record.terms.items() if not name.endswith("_acc")}
        terms = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        speed = f"{record.images_per_second:.0f} img/s{_memory()}"
        self.bars.update(
            self.epoch,
            description=f"epoch {record.epoch}",
            completed=record.step,
            info=f"{record.step}/{record.steps}  {speed}  {terms}",
        )

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        if record.validation:
            clean, robust = record.validation["clean_acc"], record.validation["robust_acc"]
            self.accuracy = f"clean {percent(clean, 1)} %  robust {percent(robust, 1)} %"
        if record.epoch == loop.epochs:
            for task in (self.whole, self.epoch):
                if task is not None:
                    self.bars.remove_task(task)


def _memory() -> str:
    """The peak memory of the GPU, if there is one."""
    if not torch.cuda.is_available():
        return ""
    return f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


class EvalBars:
    """A bar for each stage of each attack, and a line when it is done."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.lines = EvalLines(console.say)
        self.key: tuple[str, str] | None = None
        self.task: TaskID | None = None

    def __call__(self, progress: EvalProgress) -> None:
        if self.key != (progress.label, progress.stage):
            self.key = (progress.label, progress.stage)
            self.task = self.bars.add_task(
                stage_name(progress), total=progress.total, began=progress.done, info=""
            )
        assert self.task is not None
        accuracy = f"robust {percent(progress.robust_acc, 1)} %"
        info = f"{progress.done}/{progress.total}  {accuracy}{time_left(progress)}"
        self.bars.update(self.task, completed=progress.done, info=info)
        if progress.done >= progress.total:
            self.bars.remove_task(self.task)
            self.lines(progress)
