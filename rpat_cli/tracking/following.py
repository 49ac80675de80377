"""Keeps the trackers of a run informed, and the run safe from them."""

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rpat_cli.attacks.side_effects import own_randomness
from rpat_cli.engine.callback import Callback
from rpat_cli.errors import RpatError
from rpat_cli.records.metrics import EpochRecord, read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.tracking import TRACKERS, Choice
from rpat_cli.tracking.base import Status, Tracked, Tracker, Values
from rpat_cli.tracking.remembered import Remembered, make
from rpat_cli.user_code import place_of

if TYPE_CHECKING:
    from rpat_cli.engine.loop import TrainLoop


PATIENCE = 3
"""Failures in a row after which a tracker is given up: each may take as long as its timeout."""


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a record of `metrics.jsonl`, in one level: `train/loss`."""
    values: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            values |= {f"{key}/{name}": number for name, number in value.items()}
        elif key != "epoch":
            values[key] = value
    return values


@dataclass
class _Line:
    """The line to one tracker. `epoch` is the last one that it has, `waiting` what it has not taken
    yet; `tracker` is None before it has started, where that failed, and once it is given up.
    `failures` are those in a row."""

    choice: Choice
    tracker: Tracker | None = None
    epoch: int = 0
    waiting: deque[tuple[int, Values]] = field(default_factory=deque)
    has_failed: bool = False
    failures: int = 0


class Following(Callback):
    """Tells trackers of a training, or of what was measured after one.

    A tracker that fails is said once, by `say`; what it has not taken is offered again with the
    next epoch, unless it could not be started or is given up after `PATIENCE` failures in a row.
    Random generators, stdout, and the process's handlers of signals and errors are out of its
    reach. Nothing of this raises.

    `about` is what the trackers are told of the run, but for its key and their folders, which are
    in `about.folder`.
    """

    def __init__(
        self, choices: Sequence[Choice], run: RunFolder, about: Tracked, say: Callable[[str], None]
    ) -> None:
        self.lines = [_Line(choice) for choice in choices]
        self.run = run
        self.about = about
        self.say = say
        self.remembered = Remembered.of(about.folder)
        self._device = torch.device("cpu")
        self.has_results = False
        self._forgets = False

    def on_start(self, loop: "TrainLoop") -> None:
        self._device = loop.compute.device
        self.start(loop.epoch)

    def on_epoch_end(self, loop: "TrainLoop", record: EpochRecord) -> None:  # noqa: ARG002
        for line in self.lines:
            line.waiting.append((record.epoch, scalars(vars(record))))
            self._pass_on(line)
        self._remember()

    def start(self, done: int) -> None:
        """Begin, with a run of which so many epochs are done. What a tracker has not seen of them,
        it is told now."""
        records = self._records(done) if self.lines else []
        for line in self.lines:
            known = self.remembered.epochs.get(line.choice.name, 0)
            line.epoch = min(known, done)
            if not self._attempt(line, partial(self._begin, line)):
                continue
            if line.tracker and not line.tracker.rewinds:  # it has what was logged before a kill
                line.epoch = known
            line.waiting.extend((each["epoch"], scalars(each)) for each in records)
            self._pass_on(line)
        self._remember()

    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:
        """What was measured on the test set."""
        self.has_results = True
        for line in self.lines:
            self._pass_on(line)
            self._tell(line, "results", epoch, values, files)

    def finish(self, status: Status) -> None:
        for line in self.lines:
            self._tell(line, "finish", status)

    def _begin(self, line: _Line) -> None:
        folder = self.about.folder / line.choice.name
        for each in (self.about.folder, folder):
            make(each)
        tracker = TRACKERS[line.choice.name](line.choice.option)
        key = self.remembered.key
        tracker.start(replace(self.about, key=key, folder=folder, epochs=line.epoch))
        line.tracker = tracker

    def _pass_on(self, line: _Line) -> None:
        """Log what waits, until the tracker fails."""
        while line.waiting and line.tracker is not None:
            epoch, values = line.waiting[0]
            if epoch > line.epoch and not self._tell(line, "log", epoch, values):
                return
            line.epoch = max(line.epoch, epoch)
            line.waiting.popleft()

    def _tell(self, line: _Line, method: str, *arguments: Any) -> bool:
        """Call a method of a tracker, if it has started; whether that went well."""
        if line.tracker is None:
            return False
        return self._attempt(line, lambda: getattr(line.tracker, method)(*arguments))

    def _attempt(self, line: _Line, call: Callable[[], object]) -> bool:
        try:
            with own_randomness(self._device), _own_handlers(), redirect_stdout(sys.stderr):
                call()
        except (Exception, SystemExit) as error:
            self._failed(line, error)
            return False
        line.failures = 0
        return True

    def _failed(self, line: _Line, error: BaseException) -> None:
        name, without = line.choice.name, "" if line.tracker else " without it"
        if not line.has_failed:
            self.say(
                f"warning: the tracker {name} fails: {_reason(error)} The run goes on{without}; "
                f"{self.run.path} has every figure."
            )
        line.has_failed = True
        line.failures += 1
        if line.failures == PATIENCE:
            self.say(
                f"warning: the tracker {name} has failed {PATIENCE} times in a row. The run goes "
                "on without it."
            )
            line.tracker = None

    def _records(self, done: int) -> list[dict[str, Any]]:
        try:
            return [each for each in read_metrics(self.run.metrics) if each["epoch"] <= done]
        except RpatError:
            return []

    def _remember(self) -> None:
        started = [line for line in self.lines if line.tracker is not None]
        if not started:
            return
        epochs = {line.choice.name: line.epoch for line in started}
        try:
            self.remembered.write(self.about.folder, epochs)
        except (OSError, RpatError) as error:
            if not self._forgets:
                self.say(f"warning: what the trackers have is not noted: {error}")
            self._forgets = True


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    reason = text if isinstance(error, RpatError) else f"{type(error).__name__}: {text}"
    place = place_of(error)
    where = f" ({place})" if place else ""
    return f"{reason.rstrip('.')}{where}."


@contextmanager
def _own_handlers() -> Iterator[None]:
    """What a block sets for signals and for errors that nobody catches is set back: rpat answers
    Ctrl-C by saving."""
    hook = sys.excepthook
    in_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        sys.excepthook = hook
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
