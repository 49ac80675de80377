"""Asynchronous successive halving: ASHA (Li et al., MLSys 2020, arXiv 1810.05934), made
deterministic.

A rung is a number of epochs: `min_epochs`, `factor` times as many, and so on below the whole
training. Every trial is trained to its rung and pauses there; of those on a rung one in `factor` is
promoted to the next. As in the paper, slots never wait for a rung to be full. Unlike there, what is
promoted does not depend on which trial happens to finish first: combinations count in the order in
which they reached the rung, on the first rung in the order of the sweep file. So the same trials
are promoted on one slot or a hundred, on any engine, interrupted or not. All state is in the
trials' own metrics.jsonl.

The seeds of one combination are promoted together, by their mean. Promoted one by one, a
combination would be represented by the luckiest of its seeds, and the mean and standard deviation
in the table would be biased.
"""

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rpat_cli.errors import Problem
from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.spec import AshaSection
from rpat_cli.sweep.status import TrialState, TrialStatus, read_statuses
from rpat_cli.sweep.sweep_file import sweep_error

FAILED_METRIC = -math.inf
"""The metric of a combination with a failed seed: the mean of the other seeds would flatter it."""


class Asha:
    """Hands out the trials of a plan, each with the rung to reach next; the furthest ones go
    first."""

    failures_are_final = False
    upcoming = 0

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises `ConfigError` if the rungs do not fit the recipes."""
        assert plan.search is not None
        assert plan.search.asha is not None
        self.plan = plan
        self.settings = plan.search.asha
        problems = list(_problems(plan, self.settings))
        if problems:
            raise sweep_error(problems)
        self.rungs = _rungs(self.settings, plan.trials[0].recipe.epochs)
        self.statuses = read_statuses(plan, folder)
        self._seeds: dict[str, list[TrialStatus]] = {}
        for status in self.statuses.values():
            self._seeds.setdefault(status.trial.label, []).append(status)
        self._metrics = {name: self._measured(status) for name, status in self.statuses.items()}
        self._under_way: set[str] = set()
        self._failed: set[str] = set()  # in this call; earlier failures are tried again
        self._queue: list[TrialStatus] = []
        self._update_queue()

    def next(self) -> TrialStatus | None:
        if not self._queue:
            return None
        status = self._queue.pop(0)
        self._under_way.add(status.trial.name)
        return status

    def ended(self, status: TrialStatus) -> None:
        self._under_way.discard(status.trial.name)
        self._metrics[status.trial.name] = self._measured(status)
        if status.state is TrialState.FAILED:
            self._failed.add(status.trial.name)
        self._update_queue()

    def notes(self) -> Sequence[str]:
        pruned = [status for status in self.statuses.values() if status.state is TrialState.PRUNED]
        return list(dict.fromkeys(f"{status.trial.label}: {status.reason}" for status in pruned))

    def _measured(self, status: TrialStatus) -> list[float | None]:
        """The trial's metric at every rung that it has reached."""
        epoch = status.folder.progress().epoch
        return [
            status.folder.metric(self.settings.metric, rung) for rung in self.rungs if rung <= epoch
        ]

    def _update_queue(self) -> None:
        """Decide which trials go on, and to which epoch; the others are pruned for now."""
        wanted: dict[str, int | None] = {}
        for rung, labels in reversed(list(enumerate(self._ladder()))):
            until = self.rungs[rung] if rung < len(self.rungs) else None
            for label in labels:
                for status in self._seeds[label]:
                    reached = rung < len(self._metrics[status.trial.name])
                    if not reached and status.state is not TrialState.DONE:
                        wanted.setdefault(status.trial.name, until)
        for name in wanted.keys() - self._under_way:
            status = self.statuses[name]
            status.folder = replace(status.folder, until=wanted[name])
            if status.state is TrialState.PRUNED:
                status.state, status.reason = TrialState.WAITING, ""
        self._queue = [
            self.statuses[name] for name in wanted if name not in self._under_way | self._failed
        ]
        for name in self.statuses.keys() - wanted.keys() - self._under_way:
            self._prune(self.statuses[name])

    def _prune(self, status: TrialStatus) -> None:
        if status.state not in (TrialState.DONE, TrialState.FAILED):
            status.state = TrialState.PRUNED
            status.reason = f"stopped at epoch {status.folder.progress().epoch} by asha"

    def _ladder(self) -> list[list[str]]:
        """The combinations on each rung, in the order in which they reached it; the last entry are
        those trained to the end."""
        ladder = [list(self._seeds)]
        # closed: no further trial will reach this rung, and all that have reached it are measured
        closed = True
        for rung in range(len(self.rungs)):
            means = [self._mean_at(label, rung) for label in ladder[-1]]
            closed = closed and None not in means
            chosen = promoted(means, self.settings.factor, closed=closed)
            ladder.append([ladder[-1][i] for i in chosen])
        return ladder

    def _mean_at(self, label: str, rung: int) -> float | None:
        """The mean over the seeds; None until all of them have reached the rung."""
        if any(status.trial.name in self._failed for status in self._seeds[label]):
            return FAILED_METRIC
        values = []
        for status in self._seeds[label]:
            measured = self._metrics[status.trial.name]
            if rung >= len(measured):
                return None
            values.append(measured[rung])
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None


def promoted(metrics: Sequence[float | None], factor: int, *, closed: bool) -> list[int]:
    """The indices of those on a rung that are promoted. `metrics` are in the order of arrival;
    higher is better.

    After each arrival the best one in `factor` of those present is promoted, and stays promoted.
    None behind one that is not measured yet (None) counts. If a `closed` rung has fewer than
    `factor`, its best one is promoted.
    """
    ranked: list[tuple[float, int]] = []
    chosen: dict[int, None] = {}
    for place, metric in enumerate(metrics):
        if metric is None:
            break
        insort(ranked, (-metric, place))  # among equals the earlier one is ahead
        chosen |= dict.fromkeys(i for _, i in ranked[: len(ranked) // factor])
    if closed and ranked and not chosen:
        chosen[ranked[0][1]] = None
    return [i for i in chosen if metrics[i] != FAILED_METRIC]


def _rungs(settings: AshaSection, epochs: int) -> list[int]:
    """The epochs of all rungs below the whole training."""
    rungs = [settings.min_epochs]
    while rungs[-1] * settings.factor < epochs:
        rungs.append(rungs[-1] * settings.factor)
    return rungs


def _problems(plan: Plan, settings: AshaSection) -> Iterator[Problem]:
    source = plan.expander.layer.origin(("search", "asha"))
    epochs = sorted({variant.recipe.epochs for variant in plan.variants})
    if len(epochs) > 1:
        shown = ", ".join(map(str, epochs))
        message = f"the combinations have different epochs ({shown})."
        hint = "Rungs compare trainings of one length: remove `epochs` from the axes, or `asha`."
        yield Problem("search.asha", message, source, hint)
    if settings.min_epochs >= epochs[0]:
        hint = f"Use at most {epochs[0] - 1}." if epochs[0] > 1 else "Train for more epochs."
        message = f"{settings.min_epochs}: must be below the epochs of the recipe, {epochs[0]}."
        yield Problem("search.asha.min_epochs", message, source, hint)
    every = max(variant.recipe.validation.every for variant in plan.variants)
    if every > settings.min_epochs:
        message = (
            f"{settings.min_epochs}: the first validation is at epoch {every}, so there would be "
            "nothing to compare."
        )
        hint = "Raise it, or lower validation.every."
        yield Problem("search.asha.min_epochs", message, source, hint)
