"""Runs what is missing of a sweep on an engine, and keeps the table up to date."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from rpat_cli.engine.callbacks import StopSignals
from rpat_cli.errors import Interrupted, RpatError
from rpat_cli.sweep.engines.base import Ended, Engine, Job
from rpat_cli.sweep.expand import Plan, Trial
from rpat_cli.sweep.folder import Results, TrialFolder
from rpat_cli.sweep.table import SweepTable, build_table, write_table

INTERVAL = 0.1
"""Seconds between two looks at the engine."""

SAVED = 75
"""Exit code of a trial that a signal stopped after saving."""

RESUMPTIONS = 20
"""How often a trial that somebody else stopped (a time limit, pre-emption) is taken up again in one call."""


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Status:
    """Where one trial stands. `seconds` is how long its process has run in this call."""

    trial: Trial
    folder: TrialFolder
    state: State = State.WAITING
    reason: str = ""
    results: Results | None = None
    failures: int = 0
    resumptions: int = 0
    began: float = 0.0
    seconds: float = 0.0


def _ignore(_: object) -> None:
    """Nobody watches."""


@dataclass
class Runner:
    """One call of a sweep. `on_change` hears of each trial whose state changes, `on_tick` comes each time round, and
    `on_remark` takes what else there is to say.

    `retries`: how often a failed trial is run again in this call. `max_failures`: with so many trials failed for
    good, no further one is begun.
    """

    plan: Plan
    folder: Path
    engine: Engine
    retries: int = 0
    max_failures: int | None = None
    on_change: Callable[[Status], None] = _ignore
    on_tick: Callable[["Runner"], None] = _ignore
    on_remark: Callable[[str], None] = _ignore
    statuses: dict[str, Status] = field(init=False)

    def __post_init__(self) -> None:
        self.statuses = {status.trial.name: status for status in look(self.plan, self.folder)}
        self._running: dict[str, Status] = {}
        self._queue = deque(status for status in self.statuses.values() if status.state is not State.DONE)
        for status in self._queue:  # what failed in an earlier call has another chance in this one
            status.state = State.WAITING

    def run(self) -> SweepTable:
        """Run what is missing or failed; what is done is not touched.

        Raises `Interrupted` on a signal, when all trials have saved; `RunFolderError` if the final table cannot be
        written. A trial that fails raises nothing: it stands in the table.
        """
        with StopSignals() as signals:
            try:
                while (self._queue and not self._given_up) or self._running:
                    if signals.received is not None:
                        break
                    self._submit()
                    self._settle(self.engine.poll())
                    self.on_tick(self)
                    time.sleep(INTERVAL)
                self._stop(force=False)
            except KeyboardInterrupt:  # the second Ctrl-C
                self._stop(force=True)
        table = self.table()
        write_table(table, self.folder)
        done = sum(status.state is State.DONE for status in self.statuses.values())
        if signals.received is not None and done < len(self.statuses):
            raise Interrupted(
                f"stopped with {done} of {len(self.statuses)} trials done; what was running is saved. "
                "Call the same command again to go on.",
                signals.exit_code,
            )
        return table

    def table(self) -> SweepTable:
        """The table of what is known by now."""
        results = {name: status.results for name, status in self.statuses.items() if status.results is not None}
        failures = {name: s.reason for name, s in self.statuses.items() if s.reason and s.state is not State.DONE}
        return build_table(self.plan, results, failures)

    @property
    def failed(self) -> Sequence[Status]:
        return [status for status in self.statuses.values() if status.state is State.FAILED]

    @property
    def _given_up(self) -> bool:
        return self.max_failures is not None and len(self.failed) >= self.max_failures

    def _submit(self) -> None:
        """Fill the free slots. Trials that another process holds are asked for again the next time round."""
        for _ in range(len(self._queue)):
            if len(self._running) >= self.engine.slots or self._given_up:
                return
            status = self._queue.popleft()
            status.results = status.folder.results()
            if status.results is not None:  # by another call at the same time
                self._change(status, State.DONE)
                continue
            try:
                began = self.engine.submit(Job(status.trial.name, status.folder.prepare, status.folder.log))
            except (OSError, RpatError) as error:
                self._fail(status, f"could not be started: {error}")
                continue
            if not began:
                self._queue.append(status)
                continue
            status.began = time.monotonic()
            self._running[status.trial.name] = status
            self._change(status, State.RUNNING)

    def _settle(self, ended: Sequence[Ended], *, stopping: bool = False) -> None:
        for item in ended:
            status = self._running.pop(item.name)
            status.seconds += time.monotonic() - status.began
            status.results = status.folder.results() if item.exit_code == 0 else None
            if status.results is not None:
                self._change(status, State.DONE)
                self._keep_table()
            elif stopping:
                self._change(status, State.STOPPED)
            elif item.exit_code == SAVED and status.resumptions < RESUMPTIONS:
                status.resumptions += 1
                self._queue.append(status)
                self._change(status, State.WAITING)
            else:
                self._fail(status, status.folder.note_failure(item.exit_code))

    def _fail(self, status: Status, reason: str) -> None:
        status.failures += 1
        status.reason = reason
        if status.failures <= self.retries:
            self._queue.append(status)
            self._change(status, State.WAITING)
        else:
            self._change(status, State.FAILED)
            self._keep_table()

    def _keep_table(self) -> None:
        """After every finished trial. A disk that is full now may have room again: the last table decides."""
        try:
            write_table(self.table(), self.folder)
        except RpatError as error:
            self.on_remark(str(error))

    def _change(self, status: Status, state: State) -> None:
        status.state = state
        self.on_change(status)

    def _stop(self, *, force: bool) -> None:
        """Ask everything under way to save and stop, and wait for it. A second Ctrl-C ends it at once."""
        for name in self._running:
            self.engine.cancel(name, force=force)
        while self._running:
            self._settle(self.engine.poll(), stopping=True)
            self.on_tick(self)
            time.sleep(INTERVAL)


def look(plan: Plan, folder: Path) -> list[Status]:
    """Where every trial stands on disk: done, failed in an earlier call, or waiting."""
    statuses = []
    for trial in plan.trials:
        place = TrialFolder(trial, folder / "trials" / trial.name)
        status = Status(trial, place, results=place.results(), reason=place.earlier_failure())
        status.state = State.DONE if status.results is not None else State.FAILED if status.reason else State.WAITING
        statuses.append(status)
    return statuses
