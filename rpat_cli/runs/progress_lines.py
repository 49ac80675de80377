"""Progress in plain lines: for logs and pipes, and for whoever calls rpat from Python."""

import time
from collections.abc import Callable

from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.evaluation.parallel.chunks import Progress
from rpat_cli.runs.listener import Listener
from rpat_cli.text import duration, percent

SILENCE = 30.0
"""Seconds after which one hears of an attack that is not done yet."""


def in_lines(write: Callable[[str], None]) -> Listener:
    """A listener that hands every remark, epoch and attack to `write`, as a line of text."""
    return Listener(write, (EpochLines(write),), EvalLines(write))


class EvalLines:
    """One line for each attack that is done, and for one that takes long now and then one on how
    far it is."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.said = 0.0

    def __call__(self, progress: Progress) -> None:
        accuracy = f"  {stage_name(progress):<24} robust {percent(progress.robust_acc):>6} %"
        if progress.done >= progress.total:
            self.write(f"{accuracy}  after {progress.elapsed:.0f} s")
        elif progress.done:
            if time.monotonic() - self.said < SILENCE:
                return
            self.write(
                f"{accuracy}  so far, {progress.done} of {progress.total} "
                f"images{time_left(progress)}"
            )
        self.said = (
            time.monotonic()
        )  # also where an attack begins: the silence before was not its own


def time_left(progress: Progress) -> str:
    """Of the whole evaluation, as far as that can be foretold."""
    return "" if progress.left is None else f"  all done in about {duration(progress.left)}"


def stage_name(progress: Progress) -> str:
    """`autoattack 2/4 apgd-t`, or only the attack's label where it has but one stage."""
    if progress.stages == 1:
        return progress.label
    return f"{progress.label} {progress.stage_number}/{progress.stages} {progress.stage}"
