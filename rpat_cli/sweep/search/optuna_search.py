"""Combinations that Optuna chooses one by one (Akiba et al., KDD 2019, arXiv 1907.10902), by their
accuracy on validation images.

The study is a journal in the sweep's folder. It is used through Optuna's ask-and-tell interface:
`ask` for a combination, train its trials like any others, then `tell` the mean over the seeds of
each objective at the best epoch. What was asked for and not told when the sweep was killed is
trained to its end by the next call, and told then. Combinations that are no valid recipe, or have a
failed trial, are told as failed: the search goes on without them.

A study belongs to its axes, objectives, seeds and recipe. When these have changed it is refused,
not started over: a small edit must not silently discard a long search.
"""

import json
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rpat_cli.errors import ConfigError, MissingExtraError, Problem, RunFolderError
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.regular import irregular, read_regular
from rpat_cli.sweep.expand import Plan, Trial
from rpat_cli.sweep.labels import label_of
from rpat_cli.sweep.spec import Draw, OptunaSection
from rpat_cli.sweep.status import TrialState, TrialStatus, read_statuses
from rpat_cli.sweep.sweep_file import sweep_error
from rpat_cli.text import percent

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection
    from optuna.trial import TrialState as OptunaState
except ImportError as error:
    raise MissingExtraError("a search with optuna", "optuna") from error

JOURNAL = "optuna.jsonl"
STUDY = "rpat"

ABOUT = "about"
"""The study's user attribute with the axes, objectives and seeds that it belongs to."""

TRIALS = "trials"
"""The user attribute of each combination with the names of its trials."""


def _nsga2(settings: OptunaSection, seed: int) -> BaseSampler:
    """At least four generations: Optuna's default population of 50 only where the search is long
    enough for that."""
    return NSGAIISampler(seed=seed, population_size=max(2, min(50, settings.trials // 4)))


SAMPLERS: Mapping[str, Callable[[OptunaSection, int], BaseSampler]] = {
    # The constant liar keeps trials that run in parallel apart.
    "tpe": lambda settings, seed: TPESampler(seed=seed, constant_liar=True),  # noqa: ARG005
    "random": lambda settings, seed: RandomSampler(seed=seed),  # noqa: ARG005
    "nsga2": _nsga2,
}


class OptunaSearch:
    """Asks for combinations, hands out their trials, and tells the study their results."""

    failures_are_final = True

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises `ConfigError` for axes that make no valid recipe, and for the study of another
        search."""
        assert plan.search is not None
        assert plan.search.optuna is not None
        self.plan = plan
        self.folder = folder
        self.settings = plan.search.optuna
        self.journal = folder / JOURNAL
        self.statuses: dict[str, TrialStatus] = {}
        self._labels: dict[int, str] = {}  # of every combination, by its number in the study
        self._invalid: dict[int, str] = {}  # why it is no valid recipe
        self._pending: dict[int, Sequence[Trial]] = {}  # asked for, and not yet told
        self._under_way: set[str] = set()
        self._check_axes()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = self._load()
        for trials in self._pending.values():
            for trial in trials:
                status = self.statuses[trial.name]
                if status.state is TrialState.FAILED:  # the study does not know yet: try again
                    status.state = TrialState.WAITING

    @property
    def upcoming(self) -> int:
        return max(0, self.settings.trials - len(self._labels)) * len(self.plan.expander.spec.seeds)

    def next(self) -> TrialStatus | None:
        with self._explained():
            self._tell()
            while (status := self._waiting()) is None and len(self._labels) < self.settings.trials:
                self._ask()
                # at once, if an earlier combination has resolved to the same recipe
                self._tell()
        if status is not None:
            self._under_way.add(status.trial.name)
        return status

    def ended(self, status: TrialStatus) -> None:
        """`next` tells the study."""
        self._under_way.discard(status.trial.name)

    def notes(self) -> Sequence[str]:
        best = self._study.best_trials if self._study is not None else []
        head = "on the Pareto front" if len(self.settings.objective) > 1 else "best"
        lines = []
        for trial in best:
            if trial.number in self._labels:  # another call at the same time may have asked for it
                label = self._labels[trial.number]
                lines.append(f"{head} (validation): {label}: {self._shown(trial.values)}")
        for number, why in self._invalid.items():
            lines.append(f"{self._labels[number]} is no valid recipe: {why}")
        return list(dict.fromkeys(lines))

    def _shown(self, values: Sequence[float]) -> str:
        pairs = zip(self.settings.objective, values, strict=True)
        return ", ".join(f"{name} {percent(value)}" for name, value in pairs)

    def _waiting(self) -> TrialStatus | None:
        waiting = (
            status for status in self.statuses.values() if status.state is TrialState.WAITING
        )
        return next(
            (status for status in waiting if status.trial.name not in self._under_way), None
        )

    # ---- asking and telling

    def _ask(self) -> None:
        study = self._study = self._study or self._create()
        # A seed for each combination: a resumed search must not repeat its first choices.
        choices = random.Random(f"{self.settings.seed}/{len(self._labels)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about features that Optuna calls experimental
            study.sampler = SAMPLERS[self.settings.sampler](self.settings, choices.getrandbits(32))
            axes = {key: _distribution(axis) for key, axis in self.settings.axes.items()}
            asked = study.ask(axes)
        self._pending[asked.number] = self._take(asked.number, asked.params)
        asked.set_user_attr(TRIALS, _names(self._pending[asked.number]))

    def _take(self, number: int, params: Mapping[str, Any]) -> Sequence[Trial]:
        """Add a combination, and its trials if they are new; it has none if it is no valid
        recipe."""
        axes = {key: _value(axis, params[key]) for key, axis in self.settings.axes.items()}
        self._labels[number] = label_of(axes)
        try:
            expander = self.plan.expander
            own = expander.plan([expander.variant(axes)])
            is_known = all(trial.name in self.statuses for trial in own.trials)
            if not is_known:
                expander.check_shared([*self.plan.trials, *own.trials])
        except ConfigError as error:
            self._invalid[number] = "; ".join(map(str, error.problems))
            return ()
        if is_known:
            self.plan = replace(self.plan, duplicates=self.plan.duplicates + 1)
            return own.trials
        self.plan = replace(
            self.plan,
            variants=(*self.plan.variants, *own.variants),
            trials=(*self.plan.trials, *own.trials),
        )
        self.statuses |= read_statuses(own, self.folder)
        return own.trials

    def _tell(self) -> None:
        """Tell the study about every combination whose trials have all ended."""
        for number, trials in list(self._pending.items()):
            statuses = [self.statuses[trial.name] for trial in trials]
            if all(status.state in (TrialState.DONE, TrialState.FAILED) for status in statuses):
                assert self._study is not None
                values = self._values(statuses)
                state = OptunaState.COMPLETE if values else OptunaState.FAIL
                # Another call at the same time may have told it already: skip it then.
                self._study.tell(number, values, state, skip_if_finished=True)
                del self._pending[number]

    def _values(self, statuses: Sequence[TrialStatus]) -> list[float] | None:
        """Each objective's mean over the seeds; None if a trial has failed, or there was none."""
        if not statuses or any(status.state is TrialState.FAILED for status in statuses):
            return None
        means = []
        for name in self.settings.objective:
            measured = [status.folder.metric(name) for status in statuses]
            known = [value for value in measured if value is not None]
            if len(known) < len(measured):
                return None
            means.append(sum(known) / len(known))
        return means

    # ---- the study

    def _create(self) -> optuna.Study:
        self.folder.mkdir(parents=True, exist_ok=True)
        directions = [StudyDirection.MAXIMIZE] * len(self.settings.objective)
        study = optuna.create_study(
            storage=self._storage(), study_name=STUDY, directions=directions
        )
        study.set_user_attr(ABOUT, self._about())
        return study

    def _load(self) -> optuna.Study | None:
        """The study in the folder with all its combinations, if there is one."""
        if not self.journal.exists():
            return None
        if what := irregular(self.journal):
            raise RunFolderError(f"{self.journal} is {what}, not the journal of a search.")
        try:
            study = optuna.load_study(storage=self._storage(), study_name=STUDY)
        except KeyError:  # killed before the study was created
            return None
        except ValueError as error:
            raise ConfigError(
                f"{self.journal} is damaged: {error}. Delete it to start the search over: finished "
                "trials are kept."
            ) from error
        self._check(study.user_attrs.get(ABOUT, self._about()), self._about())
        for asked in study.get_trials(deepcopy=False):
            if asked.params.keys() != self.settings.axes.keys():
                continue  # killed while asking
            trials = self._take(asked.number, asked.params)
            self._check(asked.user_attrs.get(TRIALS, _names(trials)), _names(trials))
            if not asked.state.is_finished():
                self._pending[asked.number] = trials
        return study

    def _storage(self) -> JournalStorage:
        # Absolute, since the lock next to it is a symbolic link.
        return JournalStorage(JournalFileBackend(str(self.journal.resolve())))

    def _about(self) -> dict[str, Any]:
        axes = {
            key: axis.model_dump(mode="json", exclude_none=True)
            for key, axis in self.settings.axes.items()
        }
        return {
            "axes": axes,
            "objective": self.settings.objective,
            "seeds": self.plan.expander.spec.seeds,
        }

    def _check(self, before: object, now: object) -> None:
        if before != now:
            message = (
                "its axes, objective, seeds or recipe are not those of the study in "
                f"{self.journal}, which cannot be continued with others."
            )
            hint = (
                "Undo the change, choose another folder with --out, or delete that file to start "
                "the search over: finished trials are kept and not trained again."
            )
            origin = self.plan.expander.layer.origin(("search", "optuna"))
            raise ConfigError(Problem("search.optuna", message, origin, hint))

    def _check_axes(self) -> None:
        """Report what is wrong at the extremes of the axes before anything is trained, unless
        another choice of values may be valid."""
        low, high = list(self._problems_at(0)), list(self._problems_at(1))
        choices = any(axis.choice for axis in self.settings.axes.values())
        if (low and high) or ((low or high) and not choices):
            raise sweep_error(list(dict.fromkeys([*low, *high])))

    def _problems_at(self, end: int) -> Iterator[Problem]:
        axes = {key: axis.extremes[end] for key, axis in self.settings.axes.items()}
        try:
            variant = self.plan.expander.variant(axes)
        except ConfigError as error:
            yield from error.problems
            return
        for name in self.settings.objective:
            if name.endswith(AVERAGED) and not variant.recipe.wa:
                source = self.plan.expander.layer.origin(("search", "optuna", "objective"))
                message = f"{name} needs averaged weights, and the recipe has none."
                hint = "Set wa: true, or choose another objective."
                yield Problem("search.optuna.objective", message, source, hint)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises `RunFolderError` for an `OSError` in this block."""
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                _cut_partial_line(self.journal)
            raise RunFolderError(f"cannot write {self.journal}: {error.strerror}.") from error


def _cut_partial_line(journal: Path) -> None:
    """Remove a partial last line left by a full disk: Optuna would append to it, and could read
    neither line any more."""
    text = read_regular(journal)
    with journal.open("r+b") as file:
        file.truncate(text.rfind(b"\n") + 1)


def _names(trials: Sequence[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def _distribution(axis: Draw) -> BaseDistribution:
    """The axis as a distribution of Optuna. A choice may be of any type, so it is passed as
    JSON."""
    if axis.choice is not None:
        return CategoricalDistribution([json.dumps(value, default=str) for value in axis.choice])
    if axis.integer is not None:
        return IntDistribution(*axis.integer)
    low, high = axis.extremes
    return FloatDistribution(low, high, log=axis.log is not None)


def _value(axis: Draw, given: Any) -> Any:
    """The recipe's value for a parameter of Optuna."""
    return json.loads(given) if axis.choice is not None else given
