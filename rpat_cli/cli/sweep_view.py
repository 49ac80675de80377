"""What `rpat sweep` shows while it runs: a live table on a terminal, plain lines in a pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rpat_cli.cli import console
from rpat_cli.cli.sweep_list import count_states, totals
from rpat_cli.sweep.folder import TrialProgress
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.status import FINISHED, TrialState, TrialStatus
from rpat_cli.sweep.table import indented
from rpat_cli.text import duration, percent

REFRESH = 1.0
"""Seconds between two updates of the live table, which reads the files of the running trials."""

ORDER = (
    TrialState.RUNNING,
    TrialState.FAILED,
    TrialState.STOPPED,
    TrialState.QUEUED,
    TrialState.WAITING,
    TrialState.DONE,
    TrialState.PRUNED,
)
"""What is shown first if not all trials fit on the screen."""

VALIDATION, TEST = "validation", "test set"
"""On which images accuracies are: while a trial trains, and once it is evaluated."""


@contextmanager
def watching(runner: SweepRunner, *, quiet: bool) -> Iterator[None]:
    """Show the runner's progress in this block; nothing if `quiet`."""
    if quiet:
        yield
        return
    runner.on_remark = console.say
    console.say(totals(runner.search))
    if not console.err.is_terminal:
        runner.on_change = lambda status: console.say(_line(status, runner))
        yield
        return
    with Live(console=console.err, auto_refresh=False, transient=True) as live:
        shown = 0.0

        def refresh(_: SweepRunner) -> None:
            nonlocal shown
            if time.monotonic() - shown >= REFRESH:
                live.update(view(runner), refresh=True)
                shown = time.monotonic()

        runner.on_tick = refresh
        yield


# ---- lines


def _line(status: TrialStatus, runner: SweepRunner) -> str:
    """One change of state."""
    ended = (*FINISHED, TrialState.FAILED)
    done = sum(other.state in ended for other in runner.statuses.values())
    now = time.strftime("%H:%M:%S")
    text = f"{now}  {done}/{runner.expected}  {status.state:<8} {status.trial.title}"
    if status.state is TrialState.DONE:
        return (
            f"{text}  test: {_accuracies(status)}  {duration(status.seconds)}  left {_left(runner)}"
        )
    # A trial that starts may still have the reason of an earlier failure.
    starts = status.state in (TrialState.QUEUED, TrialState.RUNNING)
    return f"{text}: {indented(status.reason)}" if status.reason and not starts else text


def _accuracies(status: TrialStatus) -> str:
    best = status.results["best"] if status.results else {}
    return ", ".join(f"{label} {percent(value)}" for label, value in best.items())


def _left(runner: SweepRunner) -> str:
    """The time that is left if the other trials take as long as those finished in this call."""
    statuses = list(runner.statuses.values())
    done = [status for status in statuses if status.state is TrialState.DONE]
    times = [status.seconds for status in done if status.seconds]
    if not times:
        return "unknown"
    unfinished = (TrialState.WAITING, TrialState.QUEUED, TrialState.RUNNING)
    rest = sum(status.state in unfinished for status in statuses) + runner.search.upcoming
    return duration(sum(times) / len(times) * rest / runner.engine.slots)


# ---- the live table


def view(runner: SweepRunner) -> Group:
    """As many trials as fit on the screen, and the totals."""
    statuses = sorted(runner.statuses.values(), key=lambda status: ORDER.index(status.state))
    room = max(3, console.err.size.height - 6)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("trial", "state", "epoch", "images", "clean", "robust", "time", "left"):
        left = heading in ("trial", "state", "images")
        table.add_column(heading, justify="left" if left else "right")
    for status in statuses[:room]:
        table.add_row(*_view_cells(status))
    hidden = f"; {len(statuses) - room} not shown" if len(statuses) > room else ""
    return Group(table, Text(f"{count_states(statuses)}{hidden}; left {_left(runner)}"))


def _view_cells(status: TrialStatus) -> list[Text]:
    epochs, images, clean, robust, seconds, left = "", "", None, None, status.seconds, ""
    if status.state in (TrialState.RUNNING, TrialState.PRUNED):
        progress = status.folder.progress()
        epochs = f"{progress.epoch}/{status.trial.recipe.epochs}"
        clean, robust = progress.clean_acc, progress.robust_acc
        images = "" if robust is None else VALIDATION
        if status.state is TrialState.RUNNING:
            seconds += time.monotonic() - status.began
            left = _left_to_train(status, progress)
    elif status.results is not None:
        epochs, best = f"{status.trial.recipe.epochs}", status.results["best"]
        images, clean, robust = TEST, best.get("clean"), min(best.values())
    state = str(status.state)
    if status.state is TrialState.FAILED:
        state += f": {status.reason.splitlines()[-1]}"
    shown = duration(seconds) if seconds else ""
    accuracies = [percent(clean, 1), percent(robust, 1)]
    cells = [status.trial.title, state, epochs, images, *accuracies, shown, left]
    return [Text(cell) for cell in cells]


def _left_to_train(status: TrialStatus, progress: TrialProgress) -> str:
    """The time left in the training; that of the final report, which follows, is not known."""
    if progress.seconds is None:
        return ""
    epochs = (status.folder.until or status.trial.recipe.epochs) - progress.epoch
    return duration(epochs * progress.seconds) if epochs > 0 else "report"
