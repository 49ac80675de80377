"""The interface of a search, and the simplest one: every trial, to its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.status import TrialState, TrialStatus, read_statuses


class Search(Protocol):
    """Hands out trials one by one. All of its state is in the sweep's folder, so a search can be
    killed and rebuilt at any moment.

    `statuses`: the status of every trial that is known, by its name; more may be added later.
    `failures_are_final`: a trial that failed in an earlier call is not tried again in this one.
    """

    statuses: dict[str, TrialStatus]
    failures_are_final: bool

    @property
    def plan(self) -> Plan:
        """The trials that are known so far."""
        ...

    @property
    def upcoming(self) -> int:
        """How many trials, at most, will still be added."""
        ...

    def next(self) -> TrialStatus | None:
        """A trial to run now, up to the epoch `until` of its folder; None if there is none at the
        moment.

        No trial is returned twice before it has `ended`. Raises `RunFolderError` if the search
        cannot write to its folder.
        """
        ...

    def ended(self, status: TrialStatus) -> None:
        """Called when a trial from `next` is done, has failed for good, or has paused at
        `until`."""
        ...

    def notes(self) -> Sequence[str]:
        """Remarks on the search for the table, a line each."""
        ...


class Everything:
    """Every trial of the plan, in its order."""

    failures_are_final = False
    upcoming = 0

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.statuses = read_statuses(plan, folder)
        self._waiting = (
            status for status in list(self.statuses.values()) if status.state is not TrialState.DONE
        )

    def next(self) -> TrialStatus | None:
        return next(self._waiting, None)

    def ended(self, status: TrialStatus) -> None:
        """Nothing to do: no trial depends on another one."""

    def notes(self) -> Sequence[str]:
        return ()
