"""Successive halving that needs no rounds: ASHA (Li et al., MLSys 2020, arXiv 1810.05934), made
repeatable.

A rung is a number of epochs: `min_epochs`, `factor` times as many, and so on below the whole
training. Every trial is trained to its rung and pauses there; of those on a rung one in `factor`
goes on to the next. Slots never wait for a rung to be full, as in the paper. Unlike there, what is
promoted does not depend on who happens to finish first: combinations count in the order in which
they came to the rung, on the first one in that of the sweep file. So the same trainings come to the
same end on one slot or on a hundred, on any engine, killed or not. All that is known is in the
trials' own metrics.jsonl.

The seeds of one combination go on together, judged by their mean. One by one, a combination would
be represented by the luckiest of its seeds, and the table's mean and deviation would say nothing
any more.
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

FAILED = -math.inf
"""Stands for the figure of a combination one of whose seeds has failed: the mean of the others
would flatter it."""


class Asha:
    """Hands out the trials of a plan, each to the rung that it is to reach next; those nearest the
    end go first."""

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
        self._figures = {name: self._measured(status) for name, status in self.statuses.items()}
        self._under_way: set[str] = set()
        self._failed: set[str] = (
            set()
        )  # in this call; what failed in an earlier one has another chance
        self._queue: list[TrialStatus] = []
        self._sort_out()

    def next(self) -> TrialStatus | None:
        if not self._queue:
            return None
        status = self._queue.pop(0)
        self._under_way.add(status.trial.name)
        return status

    def ended(self, status: TrialStatus) -> None:
        self._under_way.discard(status.trial.name)
        self._figures[status.trial.name] = self._measured(status)
        if status.state is TrialState.FAILED:
            self._failed.add(status.trial.name)
        self._sort_out()

    def notes(self) -> Sequence[str]:
        pruned = [status for status in self.statuses.values() if status.state is TrialState.PRUNED]
        return list(dict.fromkeys(f"{status.trial.label}: {status.reason}" for status in pruned))

    def _measured(self, status: TrialStatus) -> list[float | None]:
        """The trial's figure at every rung that it has reached."""
        epoch = status.folder.progress().epoch
        return [
            status.folder.metric(self.settings.metric, rung) for rung in self.rungs if rung <= epoch
        ]

    def _sort_out(self) -> None:
        """Who is to go on, and how far; the others are pruned, for now."""
        wanted: dict[str, int | None] = {}
        for rung, labels in reversed(list(enumerate(self._ladder()))):
            until = self.rungs[rung] if rung < len(self.rungs) else None
            for status in (status for label in labels for status in self._seeds[label]):
                reached = rung < len(self._figures[status.trial.name])
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
        """The combinations on each rung, in the order in which they came there; at last those
        trained to the end."""
        ladder = [list(self._seeds)]
        # closed: no trial will come to this rung any more, and all there have been measured
        closed = True
        for rung in range(len(self.rungs)):
            figures = [self._figure(label, rung) for label in ladder[-1]]
            closed = closed and None not in figures
            ladder.append(
                [ladder[-1][i] for i in promoted(figures, self.settings.factor, closed=closed)]
            )
        return ladder

    def _figure(self, label: str, rung: int) -> float | None:
        """The mean over the seeds; None as long as one of them has not come to the rung."""
        if any(status.trial.name in self._failed for status in self._seeds[label]):
            return FAILED
        figures = [self._figures[status.trial.name][rung:][:1] for status in self._seeds[label]]
        known = [figure for reached in figures for figure in reached if figure is not None]
        return sum(known) / len(known) if len(known) == len(figures) else None


def promoted(figures: Sequence[float | None], factor: int, *, closed: bool) -> list[int]:
    """Which of those on a rung go on, by their place in the order of arrival; the higher figure is
    the better one.

    After each arrival it is the best one in `factor` of those there; who was promoted once, stays
    so. Behind one that has not been measured (None) nobody counts yet. If a `closed` rung was too
    short for that, its best one goes on.
    """
    ranked: list[tuple[float, int]] = []
    chosen: dict[int, None] = {}
    for place, figure in enumerate(figures):
        if figure is None:
            break
        insort(ranked, (-figure, place))  # among equals the earlier one is ahead
        chosen |= dict.fromkeys(i for _, i in ranked[: len(ranked) // factor])
    if closed and ranked and not chosen:
        chosen[ranked[0][1]] = None
    return [i for i in chosen if figures[i] != FAILED]


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
        hint = (
            "Rungs compare trainings of one length: take `epochs` out of the axes, or leave out "
            "asha."
        )
        yield Problem(
            "search.asha", f"the combinations have different epochs ({shown}).", source, hint
        )
    if settings.min_epochs >= epochs[0]:
        hint = f"Choose at most {epochs[0] - 1}." if epochs[0] > 1 else "Train for more epochs."
        message = f"{settings.min_epochs}: must be below the epochs of the recipe, {epochs[0]}."
        yield Problem("search.asha.min_epochs", message, source, hint)
    every = max(variant.recipe.validation.every for variant in plan.variants)
    if every > settings.min_epochs:
        message = (
            f"{settings.min_epochs}: the first validation is at epoch {every}, so nothing could "
            "be compared."
        )
        yield Problem(
            "search.asha.min_epochs", message, source, "Raise it, or lower validation.every."
        )
