"""How a call shows its progress, and the functions that the caller wants to be called."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rpat_cli.cli.progress import listening
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.parallel.chunks import Progress as EvalProgress
from rpat_cli.records.metrics import EpochRecord
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.progress_lines import COLUMNS, EvalLines, in_lines, stage_name, time_left
from rpat_cli.text import percent

if TYPE_CHECKING:
    from rpat_cli.engine.loop import TrainLoop

Show = bool | Callable[[str], None] | None
"""True: bars; a function: it gets lines of text; None: bars in a notebook, nothing elsewhere."""

PerEpoch = Callback | Callable[[EpochRecord], Any]

INTERVAL = 0.2
"""Seconds between two changes of a notebook's bar."""


@contextmanager
def showing(progress: Show, callbacks: Sequence[PerEpoch] = ()) -> Iterator[Listener]:
    """A listener that shows progress as asked, and calls the callbacks of the caller. Raises
    `ConfigError` for what is no callback."""
    own = tuple(map(_as_callback, callbacks))
    with _shown(progress) as listener:
        yield replace(listener, callbacks=(*listener.callbacks, *own))


@contextmanager
def _shown(progress: Show) -> Iterator[Listener]:
    if callable(progress):
        yield in_lines(progress)
    elif in_notebook() and progress is not False:
        with _Bar() as bar:
            yield Listener(_write, (_TrainBar(bar), EpochLines(_write, COLUMNS)), _EvalBar(bar))
    else:
        with listening(quiet=not progress) as listener:
            yield listener


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class _AfterEpoch(Callback):
    """Calls a function after every epoch."""

    def __init__(self, function: Callable[[EpochRecord], Any]) -> None:
        self.function = function

    def on_epoch_end(self, loop: "TrainLoop", record: EpochRecord) -> None:  # noqa: ARG002
        self.function(record)


def _as_callback(given: PerEpoch) -> Callback:
    if isinstance(given, Callback):
        return given
    if callable(given) and not isinstance(given, type):
        return _AfterEpoch(given)
    message = f"{given!r} is neither a function of an epoch's record nor a rpat.Callback."
    raise ConfigError(Problem("callbacks", message, hint="Example: callbacks=[print]."))


def _write(text: str) -> None:
    print(text)


class _Bar:
    """A bar in the output of a notebook's cell, changed in place, and gone at the end."""

    def __init__(self) -> None:
        self._changed = 0.0

    def __enter__(self) -> "_Bar":
        display = import_module("IPython.display").display  # in a notebook it is there
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle.update({"text/plain": ""}, raw=True)

    def show(self, share: float, text: str) -> None:
        now = time.monotonic()
        if now - self._changed < INTERVAL:
            return
        self._changed = now
        html = f'<progress max="1" value="{share:.4f}"></progress> <code>{escape(text)}</code>'
        self._handle.update({"text/plain": text, "text/html": html}, raw=True)


class _TrainBar(Callback):
    def __init__(self, bar: _Bar) -> None:
        self.bar = bar

    def on_step(self, loop: "TrainLoop", record: StepRecord) -> None:
        share = ((record.epoch - 1) * record.steps + record.step) / (loop.epochs * record.steps)
        text = (
            f"epoch {record.epoch}/{loop.epochs}  step {record.step}/{record.steps}  "
            f"loss {record.terms['loss']:.3f}  {record.images_per_second:.0f} img/s"
        )
        self.bar.show(share, text)


class _EvalBar:
    def __init__(self, bar: _Bar) -> None:
        self.bar = bar
        self.lines = EvalLines(_write)

    def __call__(self, progress: EvalProgress) -> None:
        text = (
            f"{stage_name(progress)}  {progress.done}/{progress.total}  "
            f"robust {percent(progress.robust_acc, 1)} %{time_left(progress)}"
        )
        self.bar.show(progress.done / max(1, progress.total), text)
        if progress.done >= progress.total:
            self.lines(progress)
