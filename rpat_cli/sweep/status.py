"""The status of each trial of a sweep."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rpat_cli.errors import Problem
from rpat_cli.loading.missing import missing_networks
from rpat_cli.records.checkpoint import is_saved
from rpat_cli.reports.saved_report import Results
from rpat_cli.sweep.expand import Plan, Trial, with_labels
from rpat_cli.sweep.folder import TRIALS, TrialFolder
from rpat_cli.sweep.sweep_file import sweep_error


class TrialState(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    """Submitted to a cluster, where its process has not started yet."""
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    """Stopped early by a search, as one of the worse ones. It has not failed, and may still be
    resumed."""
    FAILED = "failed"
    STOPPED = "stopped"


FINISHED = (TrialState.DONE, TrialState.PRUNED)
"""States of trials with nothing left to do."""


@dataclass
class TrialStatus:
    """The state of one trial and what is known of it.

    `reason` says why it failed, or was stopped early. `began` is the time (`time.monotonic`) at
    which its process started, `seconds` how long its processes have run in this call.
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
    """The status on disk of a trial of the sweep in `folder`: done, failed in an earlier call, or
    waiting."""
    place = TrialFolder(trial, folder / TRIALS / trial.name)
    status = TrialStatus(trial, place, results=place.results(), reason=place.earlier_failure())
    if status.results is not None:
        status.state = TrialState.DONE
    elif status.reason:
        status.state = TrialState.FAILED
    return status


def read_statuses(plan: Plan, folder: Path) -> dict[str, TrialStatus]:
    """The status on disk of all trials of a plan, by name."""
    return {trial.name: status_of(trial, folder) for trial in plan.trials}


def check_starts(statuses: Iterable[TrialStatus]) -> None:
    """Raise `ConfigError` for runs and files that unfinished trials begin or learn from and that
    are not there. A trial that has a checkpoint needs no start any more."""
    found: dict[Problem, list[str]] = {}
    for status in statuses:
        if status.state in FINISHED:
            continue
        has_begun = is_saved(status.folder.run.checkpoint("last"))
        for problem in missing_networks(status.trial.recipe):
            if problem.key != "init" or not has_begun:
                found.setdefault(problem, []).append(status.trial.title)
    if found:
        raise sweep_error([with_labels(problem, titles) for problem, titles in found.items()])
