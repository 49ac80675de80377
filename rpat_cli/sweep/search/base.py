"""What the runner asks of a search, and the plainest one: every trial, to its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.status import State, Status, look


class Search(Protocol):
    """Hands out trials one by one. What it knows, it knows from the sweep's folder: a search can be
    killed and built again at any moment.

    `statuses`: where every trial that is known stands, by its name; there may be more of them
    later.
    `fails_for_good`: a trial that failed in an earlier call is not tried again in this one.
    """

    statuses: dict[str, Status]
    fails_for_good: bool

    @property
    def plan(self) -> Plan:
        """The trials that are known by now."""
        ...

    @property
    def to_come(self) -> int:
        """How many trials there will be that nobody knows yet, at most."""
        ...

    def next(self) -> Status | None:
        """A trial to be run now, as far as its folder's `until` says; None if there is none as
        things stand.

        No trial comes twice before it has `ended`. Raises `RunFolderError` if the search cannot
        write to its folder.
        """
        ...

    def ended(self, status: Status) -> None:
        """A trial that `next` has handed out is done, has failed for good, or has paused where it
        was to."""
        ...

    def notes(self) -> Sequence[str]:
        """What the table should say of the search, a line each."""
        ...


class Everything:
    """Every trial of the plan, in its order."""

    fails_for_good = False
    to_come = 0

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.statuses = look(plan, folder)
        self._waiting = (
            status for status in list(self.statuses.values()) if status.state is not State.DONE
        )

    def next(self) -> Status | None:
        return next(self._waiting, None)

    def ended(self, status: Status) -> None:
        """Nothing follows from it."""

    def notes(self) -> Sequence[str]:
        return ()
