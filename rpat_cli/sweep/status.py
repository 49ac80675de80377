"""Where each trial of a sweep stands."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rpat_cli.sweep.expand import Plan, Trial
from rpat_cli.sweep.folder import Results, TrialFolder


class State(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    """It was given to a cluster, where its process has not begun yet."""
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    """A search stopped it early, as one of the worse ones. It has not failed, and may yet be taken
    up again."""
    FAILED = "failed"
    STOPPED = "stopped"


OVER = (State.DONE, State.PRUNED)
"""States of trials that nothing remains to be done for."""


@dataclass
class Status:
    """Where one trial stands. `reason`: why it has failed, or why it was stopped early. `seconds`
    is how long its process has run in this call.
    """

    trial: Trial
    folder: TrialFolder
    state: State = State.WAITING
    reason: str = ""
    results: Results | None = None
    failures: int = 0
    resumptions: int = 0
    began: float = 0.0
    seconds: float = 0.0


def status_of(trial: Trial, folder: Path) -> Status:
    """Where a trial of the sweep in `folder` stands on disk: done, failed in an earlier call, or
    waiting."""
    place = TrialFolder(trial, folder / "trials" / trial.name)
    status = Status(trial, place, results=place.results(), reason=place.earlier_failure())
    status.state = (
        State.DONE
        if status.results is not None
        else State.FAILED
        if status.reason
        else State.WAITING
    )
    return status


def look(plan: Plan, folder: Path) -> dict[str, Status]:
    """All trials of a plan by name, each as it stands on disk."""
    return {trial.name: status_of(trial, folder) for trial in plan.trials}
