"""Runs what is missing of a sweep on an engine, and keeps the table up to date."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rpat_cli.engine.callbacks import StopSignals
from rpat_cli.errors import Interrupted, RpatError, RunFolderError
from rpat_cli.sweep.engines.base import Ended, Engine, Job
from rpat_cli.sweep.engines.node import EXIT_SAVED, has_begun
from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.page import write_table
from rpat_cli.sweep.search import search_for
from rpat_cli.sweep.search.base import Search
from rpat_cli.sweep.status import FINISHED, TrialState, TrialStatus
from rpat_cli.sweep.table import SweepTable, build_table

INTERVAL = 0.1
"""Seconds between two looks at the engine."""

QUEUE_INTERVAL = 1.0
"""Seconds between two looks at the folders of trials that wait in a cluster's queue."""

RESUMPTIONS = 20
"""How often a trial that somebody else stopped (a time limit, pre-emption) is taken up again in one
call."""

TABLE_SHARE = 20
"""Once the table is written, so many times as long passes before it is written again while trials
run."""


def _ignore(_: object) -> None:
    """Nobody watches."""


@dataclass
class SweepRunner:
    """One call of a sweep. `on_change` hears of each trial whose state changes, `on_tick` comes
    each time round, and `on_remark` takes what else there is to say.

    `retries`: how often a failed trial is run again in this call. `max_failures`: with so many
    trials failed for good, no further one is begun.
    """

    plan: Plan
    folder: Path
    engine: Engine
    retries: int = 0
    max_failures: int | None = None
    on_change: Callable[[TrialStatus], None] = _ignore
    on_tick: Callable[["SweepRunner"], None] = _ignore
    on_remark: Callable[[str], None] = _ignore
    search: Search = field(init=False)

    def __post_init__(self) -> None:
        self.search = search_for(self.plan, self.folder)
        self._running: dict[str, TrialStatus] = {}
        self._again: deque[TrialStatus] = deque()  # begun before, and to be begun once more
        self._failures = 0
        self._table_due = 0.0
        self._queue_due = 0.0
        for status in self.failed:  # what failed in an earlier call has another chance in this one
            if not self.search.failures_are_final:
                status.state = TrialState.WAITING

    def run(self) -> SweepTable:
        """Run what is missing or failed; what is done is not touched.

        Raises `Interrupted` on a signal, when all trials have saved; `RunFolderError` if the
        folder, the final table, or what the search has to remember, cannot be written. A trial that
        fails raises nothing: it stands in the table.
        """
        try:
            (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:  # once, and not for every trial
            raise RunFolderError(f"cannot write {self.folder}: {error.strerror}.") from error
        with StopSignals() as signals:
            try:
                while signals.received is None and self._submit():
                    self._settle(self.engine.poll())
                    self._look_at_queue()
                    self.on_tick(self)
                    time.sleep(INTERVAL)
                self._stop(force=False)
            except RpatError:  # the search cannot go on
                self._stop(force=False)
                raise
            except KeyboardInterrupt:  # the second Ctrl-C
                self._stop(force=True)
        table = self.table()
        write_table(table, self.folder)
        over = sum(status.state in FINISHED for status in self.statuses.values())
        if signals.received is not None and over < self.expected:
            raise Interrupted(
                f"stopped with {over} of {self.expected} trials done; what was running is saved. "
                "Call the same command again to go on.",
                signals.exit_code,
            )
        return table

    def table(self) -> SweepTable:
        """The table of what is known by now."""
        results = {
            name: status.results
            for name, status in self.statuses.items()
            if status.results is not None
        }
        failures = {
            name: s.reason
            for name, s in self.statuses.items()
            if s.reason and s.state not in FINISHED
        }
        return build_table(self.search.plan, results, failures, self.search.notes())

    @property
    def statuses(self) -> Mapping[str, TrialStatus]:
        """Of every trial that is known by now, by its name."""
        return self.search.statuses

    @property
    def expected(self) -> int:
        """How many trials there will be in the end, at most."""
        return len(self.statuses) + self.search.upcoming

    @property
    def failed(self) -> Sequence[TrialStatus]:
        return [status for status in self.statuses.values() if status.state is TrialState.FAILED]

    @property
    def _given_up(self) -> bool:
        return self.max_failures is not None and self._failures >= self.max_failures

    def _submit(self) -> bool:
        """Fill the free slots; false when all is over. What another process holds is asked for the
        next time round."""
        held = []
        while len(self._running) < self.engine.slots and not self._given_up:
            status = self._again.popleft() if self._again else self.search.next()
            if status is None:
                break
            if not self._begin(status):
                held.append(status)
        self._again.extend(held)
        return bool(self._running) or (bool(self._again) and not self._given_up)

    def _begin(self, status: TrialStatus) -> bool:
        """Start a trial; false if another process holds it."""
        status.results = status.folder.results()
        if (
            status.results is not None or status.folder.has_paused
        ):  # by another call, or what is left of one
            self._over(status, TrialState.DONE if status.results is not None else TrialState.PRUNED)
            return True
        try:
            began = self.engine.submit(
                Job(status.trial.name, status.folder.prepare, status.folder.log)
            )
        except (OSError, RpatError) as error:
            self._fail(status, f"could not be started: {error}")
            return True
        if began:
            status.began = time.monotonic()
            self._running[status.trial.name] = status
            self._change(
                status, TrialState.RUNNING if has_begun(status.folder.log) else TrialState.QUEUED
            )
        return began

    def _look_at_queue(self) -> None:
        """Trials that wait on a cluster run from the moment at which their process is there."""
        now = time.monotonic()
        if now < self._queue_due:
            return
        self._queue_due = now + QUEUE_INTERVAL
        for status in self._running.values():
            if status.state is TrialState.QUEUED and has_begun(status.folder.log):
                status.began = now
                self._change(status, TrialState.RUNNING)

    def _settle(self, ended: Sequence[Ended], *, stopping: bool = False) -> None:
        for item in ended:
            status = self._running.pop(item.name)
            status.seconds += time.monotonic() - status.began
            status.results = status.folder.results() if item.exit_code == 0 else None
            if status.results is not None:
                self._over(status, TrialState.DONE)
            elif item.exit_code == 0 and status.folder.has_paused:
                self._over(status, TrialState.PRUNED)
            elif stopping:
                self._change(status, TrialState.STOPPED)
            elif item.exit_code == EXIT_SAVED and status.resumptions < RESUMPTIONS:
                status.resumptions += 1
                self._again.append(status)
                self._change(status, TrialState.WAITING)
            else:
                self._fail(status, status.folder.note_failure(item.exit_code))

    def _fail(self, status: TrialStatus, reason: str) -> None:
        status.failures += 1
        status.reason = reason
        if status.failures <= self.retries:
            self._again.append(status)
            self._change(status, TrialState.WAITING)
        else:
            self._failures += 1
            self._over(status, TrialState.FAILED)

    def _over(self, status: TrialStatus, state: TrialState) -> None:
        """Nothing more is to be done for a trial, unless the search says otherwise."""
        status.state = state
        self.search.ended(status)
        self.on_change(status)
        self._keep_table()

    def _keep_table(self) -> None:
        """After finished trials. A disk that is full now may have room again: the last table
        decides.

        With a thousand trials the plot alone takes a moment: no more than a small share of the time
        is to go there.
        """
        began = time.monotonic()
        if began < self._table_due:
            return
        try:
            write_table(self.table(), self.folder)
        except RpatError as error:
            self.on_remark(str(error))
        now = time.monotonic()
        self._table_due = now + TABLE_SHARE * (now - began)

    def _change(self, status: TrialStatus, state: TrialState) -> None:
        status.state = state
        self.on_change(status)

    def _stop(self, *, force: bool) -> None:
        """Ask everything under way to save and stop, and wait for it. A second Ctrl-C ends it at
        once."""
        for name in self._running:
            self.engine.cancel(name, force=force)
        while self._running:
            self._settle(self.engine.poll(), stopping=True)
            self.on_tick(self)
            time.sleep(INTERVAL)
