"""Progress in plain lines: for logs, pipes, and callers from Python."""

import time
from collections.abc import Callable

from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.evaluation.parallel.chunks import Progress
from rpat_cli.runs.listener import Listener
from rpat_cli.text import percent, remaining

INTERVAL = 30.0
"""Seconds between two lines about an attack that is still running."""

COLUMNS = 80
"""The longest line about an epoch: a terminal has at least so many columns."""


def in_lines(write: Callable[[str], None]) -> Listener:
    """A listener that writes a line of text for every message, epoch and attack."""
    return Listener(write, (EpochLines(write, COLUMNS),), EvalLines(write))


class EvalLines:
    """Writes one line for each attack that is done, and now and then one about the progress of an
    attack that takes long."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.written = 0.0

    def __call__(self, progress: Progress) -> None:
        accuracy = f"  {stage_name(progress):<24} robust {percent(progress.robust_acc):>6} %"
        if progress.done >= progress.total:
            self.write(f"{accuracy}  after {progress.elapsed:.0f} s")
        elif progress.done:
            if time.monotonic() - self.written < INTERVAL:
                return
            self.write(
                f"{accuracy}  so far, {progress.done} of {progress.total} "
                f"images{time_left(progress)}"
            )
        # Also when an attack begins, with nothing written: its interval starts here.
        self.written = time.monotonic()


def time_left(progress: Progress) -> str:
    """That of the whole evaluation; empty if it cannot be estimated."""
    return "" if progress.left is None else f"  all done in about {remaining(progress.left)}"


def stage_name(progress: Progress) -> str:
    """`autoattack 2/4 apgd-t`, or the label alone for an attack of a single stage."""
    if progress.stages == 1:
        return progress.label
    return f"{progress.label} {progress.stage_number}/{progress.stages} {progress.stage}"
