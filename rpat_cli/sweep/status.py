"""Where each trial of a sweep stands."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rpat_cli.sweep.expand import Plan, Trial
from rpat_cli.sweep.folder import Results, TrialFolder


class TrialState(StrEnum):
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


FINISHED = (TrialState.DONE, TrialState.PRUNED)
"""States of trials that nothing remains to be done for."""


@dataclass
class TrialStatus:
    """Where one trial stands. `reason`: why it has failed, or why it was stopped early. `seconds`
    is how long its process has run in this call.
    """

    trial: Trial
    folder: TrialFolder
    state: TrialState = TrialState.WAITING
    reason: str = ""
    results: Results | None = None
    failures: int = 0
    resumptions: int = 0
    began: float = 0.0
    seconds: float = 0.0


def status_of(trial: Trial, folder: Path) -> TrialStatus:
    """Where a trial of the sweep in `folder` stands on disk: done, failed in an earlier call, or
    waiting."""
    place = TrialFolder(trial, folder / "trials" / trial.name)
    status = TrialStatus(trial, place, results=place.results(), reason=place.earlier_failure())
    status.state = (
        TrialState.DONE
        if status.results is not None
        else TrialState.FAILED
        if status.reason
        else TrialState.WAITING
    )
    return status


def read_statuses(plan: Plan, folder: Path) -> dict[str, TrialStatus]:
    """All trials of a plan by name, each as it stands on disk."""
    return {trial.name: status_of(trial, folder) for trial in plan.trials}
