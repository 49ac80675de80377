"""Runs the unfinished trials of a sweep on an engine, and keeps the table up to date."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rpat_cli.errors import Interrupted, RpatError, RunFolderError
from rpat_cli.signals import StopSignals
from rpat_cli.sweep.cost import TrialCost, cost_of, total_cost
from rpat_cli.sweep.engines.base import Ended, Engine, Job
from rpat_cli.sweep.engines.node import EXIT_SAVED, has_begun
from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.folder import TRIALS
from rpat_cli.sweep.page import write_table
from rpat_cli.sweep.search import search_for
from rpat_cli.sweep.search.base import Search
from rpat_cli.sweep.status import FINISHED, TrialState, TrialStatus
from rpat_cli.sweep.table import SweepTable, build_table
from rpat_cli.tracking import Choice

INTERVAL = 0.1
"""Seconds between two polls of the engine."""

QUEUE_INTERVAL = 1.0
"""Seconds between two checks whether trials queued on a cluster have started."""

RESUMPTIONS = 20
"""How often a trial that was stopped from outside (a time limit, preemption) is resumed in one
call."""

TABLE_SHARE = 20
"""While trials run, writing the table takes at most one part in so many of the time."""


def _ignore(_: object) -> None:
    """The default of all callbacks."""


@dataclass
class SweepRunner:
    """One call of a sweep. `on_change` gets each trial whose state changes, `on_tick` is called in
    every round, and `on_remark` gets other messages for the user.

    `retries`: how often a failed trial is run again in this call. `max_failures`: after so many
    failed trials no further one is started. `trackers` follow every trial.
    """

    plan: Plan
    folder: Path
    engine: Engine
    retries: int = 0
    max_failures: int | None = None
    trackers: Sequence[Choice] = ()
    on_change: Callable[[TrialStatus], None] = _ignore
    on_tick: Callable[["SweepRunner"], None] = _ignore
    on_remark: Callable[[str], None] = _ignore
    search: Search = field(init=False)

    def __post_init__(self) -> None:
        self.search = search_for(self.plan, self.folder)
        self._running: dict[str, TrialStatus] = {}
        self._again: deque[TrialStatus] = deque()  # started before, and to be started again
        self._costs: dict[str, TrialCost] = {}
        self._failures = 0
        self._table_due = 0.0
        self._queue_due = 0.0
        for status in self.failed:  # failures of an earlier call are tried again
            if not self.search.failures_are_final:
                status.state = TrialState.WAITING

    def run(self) -> SweepTable:
        """Run the trials that are missing or failed; finished ones are left as they are.

        Raises `Interrupted` on a signal, once all trials have saved; `RunFolderError` if the
        folder, the final table or the state of the search cannot be written. A failed trial raises
        nothing: the table reports it.
        """
        try:
            (self.folder / TRIALS).mkdir(parents=True, exist_ok=True)
        except OSError as error:  # report it once, not for every trial
            raise RunFolderError(f"cannot write {self.folder}: {error.strerror}.") from error
        with StopSignals() as signals:
            try:
                while signals.received is None and self._submit():
                    self._settle(self.engine.poll())
                    self._check_queue()
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
                f"stopped with {over} of {self.expected} trials done; running trials have saved "
                "a checkpoint. Run the same command again to resume.",
                signals.exit_code,
            )
        return table

    def table(self) -> SweepTable:
        """The table of the results so far."""
        results = {
            name: status.results
            for name, status in self.statuses.items()
            if status.results is not None
        }
        failures = {
            name: status.reason
            for name, status in self.statuses.items()
            if status.reason and status.state not in FINISHED
        }
        cost = total_cost(map(self._cost, self.statuses.values()))
        return build_table(self.search.plan, results, failures, self.search.notes(), cost)

    def _cost(self, status: TrialStatus) -> TrialCost:
        name = status.trial.name
        found = self._costs.get(name) or cost_of(status.folder.run)
        if status.state is TrialState.DONE:  # its files do not change any more
            self._costs[name] = found
        return found

    @property
    def statuses(self) -> Mapping[str, TrialStatus]:
        """The status of every trial that is known so far, by its name."""
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
        """Fill the free slots; false once nothing is left. A trial held by another process is tried
        again in the next round."""
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
        # Another call, or the jobs it has left on a cluster, may have finished it.
        if status.results is not None or status.folder.has_paused:
            self._over(status, TrialState.DONE if status.results is not None else TrialState.PRUNED)
            return True
        prepare = partial(status.folder.prepare, self.trackers)
        job = Job(status.trial.name, prepare, status.folder.log)
        try:
            self.plan.expander.runs.keep(self.folder)
            began = self.engine.submit(job)
        except (OSError, RpatError) as error:
            self._fail(status, f"could not be started: {error}")
            return True
        if began:
            status.began = time.monotonic()
            self._running[status.trial.name] = status
            is_running = has_begun(status.folder.log)
            self._change(status, TrialState.RUNNING if is_running else TrialState.QUEUED)
        return began

    def _check_queue(self) -> None:
        """Queued trials count as running once their process has started."""
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
        """A trial is finished, unless the search resumes it."""
        status.state = state
        self.search.ended(status)
        self.on_change(status)
        self._keep_table()

    def _keep_table(self) -> None:
        """Update the table after a finished trial. A failure to write is only a remark here: the
        disk may have room again when the final table is written.

        With a thousand trials the plot alone takes a moment, hence the limit on the share of time.
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
        """Ask all running trials to save and stop, and wait for them; with `force` kill them."""
        for name in self._running:
            self.engine.cancel(name, force=force)
        while self._running:
            self._settle(self.engine.poll(), stopping=True)
            self.on_tick(self)
            time.sleep(INTERVAL)
