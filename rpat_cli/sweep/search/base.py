"""What the runner asks of a search, and the plainest one: every trial, to its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.status import TrialState, TrialStatus, read_statuses


class Search(Protocol):
    """Hands out trials one by one. What it knows, it knows from the sweep's folder: a search can be
    killed and built again at any moment.

    `statuses`: where every trial that is known stands, by its name; there may be more of them
    later.
    `failures_are_final`: a trial that failed in an earlier call is not tried again in this one.
    """

    statuses: dict[str, TrialStatus]
    failures_are_final: bool

    @property
    def plan(self) -> Plan:
        """The trials that are known by now."""
        ...

    @property
    def upcoming(self) -> int:
        """How many trials there will be that nobody knows yet, at most."""
        ...

    def next(self) -> TrialStatus | None:
        """A trial to be run now, as far as its folder's `until` says; None if there is none as
        things stand.

        No trial comes twice before it has `ended`. Raises `RunFolderError` if the search cannot
        write to its folder.
        """
        ...

    def ended(self, status: TrialStatus) -> None:
        """A trial that `next` has handed out is done, has failed for good, or has paused where it
        was to."""
        ...

    def notes(self) -> Sequence[str]:
        """What the table should say of the search, a line each."""
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
        """Nothing follows from it."""

    def notes(self) -> Sequence[str]:
        return ()
