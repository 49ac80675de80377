"""What the runner asks of an engine: submit, poll, cancel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """A command to run; all that it prints goes to the end of `log`. `name` tells it from others.

    `prepare` makes the folder ready and returns the command. It is called when no other process works there any more.
    """

    name: str
    prepare: Callable[[], tuple[str, ...]]
    log: Path


@dataclass(frozen=True)
class Ended:
    """A job that has ended. `exit_code` is negative if a signal killed it, as in `subprocess`."""

    name: str
    exit_code: int


class Engine(Protocol):
    """Runs jobs side by side. An engine knows nothing of trials, recipes or results."""

    @property
    def slots(self) -> int:
        """How many jobs may be under way at once."""
        ...

    def submit(self, job: Job) -> bool:
        """Start a job, or queue it; false while a process of an earlier call still holds it.

        Raises `OSError` if it cannot be started, and whatever `prepare` raises.
        """
        ...

    def poll(self) -> list[Ended]:
        """The jobs that have ended since the last call. Never waits."""
        ...

    def cancel(self, name: str, *, force: bool = False) -> None:
        """Ask a job to save and stop (SIGTERM), or with `force` end it at once. It comes out of `poll` when it has."""
        ...
