"""Combinations that Optuna asks for one by one (Akiba et al., KDD 2019, arXiv 1907.10902), judged
on validation images.

The study is a journal in the sweep's folder. A combination is asked for, its trials are trained
like any others, and the study is told the mean over the seeds of each objective at the best epoch.
What was asked for but not told when the sweep was killed is run to its end by the next call, and
told then. Combinations that are no valid recipe, or one of whose trials has failed, are told as
failed: the search goes on without them.

A study belongs to its axes, objectives, seeds and recipe. When these have changed it is refused,
not begun anew: a small edit must not throw a long search away unseen.
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
from rpat_cli.reports.scores import percent
from rpat_cli.sweep.expand import Plan, Trial, label_of
from rpat_cli.sweep.spec import Draw, OptunaSection, mistakes
from rpat_cli.sweep.status import State, Status, look

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
    from optuna.trial import TrialState
except ImportError as error:
    raise MissingExtraError("a search with optuna", "optuna") from error

JOURNAL = "optuna.jsonl"
STUDY = "rpat"

ABOUT = "about"
"""Our note in the study: what it belongs to."""

TRIALS = "trials"
"""Our note with each combination: the names of its trials."""


def _nsga2(settings: OptunaSection, seed: int) -> BaseSampler:
    """With at least four generations, and Optuna's population of 50 in searches that are long
    enough for it."""
    return NSGAIISampler(seed=seed, population_size=max(2, min(50, settings.trials // 4)))


SAMPLERS: Mapping[str, Callable[[OptunaSection, int], BaseSampler]] = {
    # The constant liar keeps trials that run side by side apart.
    "tpe": lambda settings, seed: TPESampler(seed=seed, constant_liar=True),  # noqa: ARG005
    "random": lambda settings, seed: RandomSampler(seed=seed),  # noqa: ARG005
    "nsga2": _nsga2,
}


class Asked:
    """Asks for combinations, hands out their trials, and tells what came out."""

    fails_for_good = True

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises `ConfigError` for axes that lead to no recipe, and for the study of another
        search."""
        assert plan.search is not None
        assert plan.search.optuna is not None
        self.plan = plan
        self.folder = folder
        self.settings = plan.search.optuna
        self.journal = folder / JOURNAL
        self.statuses: dict[str, Status] = {}
        self._labels: dict[int, str] = {}  # of every combination, by its number in the study
        self._wrong: dict[int, str] = {}  # why it is no recipe
        self._pending: dict[int, Sequence[Trial]] = {}  # asked for, and not told
        self._under_way: set[str] = set()
        self._check_axes()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = self._load()
        for name in (trial.name for trials in self._pending.values() for trial in trials):
            if (
                self.statuses[name].state is State.FAILED
            ):  # before the study was told: it has another chance
                self.statuses[name].state = State.WAITING

    @property
    def to_come(self) -> int:
        return max(0, self.settings.trials - len(self._labels)) * len(self.plan.maker.spec.seeds)

    def next(self) -> Status | None:
        with self._explained():
            self._tell()
            while (status := self._waiting()) is None and len(self._labels) < self.settings.trials:
                self._ask()
                # it is known already if an earlier combination came to the same recipe
                self._tell()
        if status is not None:
            self._under_way.add(status.trial.name)
        return status

    def ended(self, status: Status) -> None:
        """The study is told by `next`."""
        self._under_way.discard(status.trial.name)

    def notes(self) -> Sequence[str]:
        best = self._study.best_trials if self._study is not None else []
        head = "on the Pareto front" if len(self.settings.objective) > 1 else "best"
        lines = [
            f"{head} (validation): {self._labels[trial.number]}: {self._spoken(trial.values)}"
            for trial in best
            if trial.number
            in self._labels  # others were asked for by another call at the same time
        ]
        wrong = [
            f"{self._labels[number]} is no valid recipe: {why}"
            for number, why in self._wrong.items()
        ]
        return list(dict.fromkeys([*lines, *wrong]))

    def _spoken(self, values: Sequence[float]) -> str:
        pairs = zip(self.settings.objective, values, strict=True)
        return ", ".join(f"{name} {percent(value)}" for name, value in pairs)

    def _waiting(self) -> Status | None:
        waiting = (status for status in self.statuses.values() if status.state is State.WAITING)
        return next(
            (status for status in waiting if status.trial.name not in self._under_way), None
        )

    # ---- asking and telling

    def _ask(self) -> None:
        study = self._study = self._study or self._create()
        # A seed of its own for each: a search that goes on must not make its first choices a second
        # time.
        choices = random.Random(f"{self.settings.seed}/{len(self._labels)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Optuna calls experimental
            study.sampler = SAMPLERS[self.settings.sampler](self.settings, choices.getrandbits(32))
            asked = study.ask(
                {key: _distribution(axis) for key, axis in self.settings.axes.items()}
            )
        self._pending[asked.number] = self._take(asked.number, asked.params)
        asked.set_user_attr(TRIALS, _names(self._pending[asked.number]))

    def _take(self, number: int, params: Mapping[str, Any]) -> Sequence[Trial]:
        """Enter a combination, and its trials if they are new. There are none if it is no valid
        recipe."""
        axes = {key: _value(axis, params[key]) for key, axis in self.settings.axes.items()}
        self._labels[number] = label_of(axes)
        try:
            own = self.plan.maker.plan([self.plan.maker.variant(axes)])
        except ConfigError as error:
            self._wrong[number] = "; ".join(map(str, error.problems))
            return ()
        if own.trials[0].name in self.statuses:
            self.plan = replace(self.plan, doubles=self.plan.doubles + 1)
            return own.trials
        self.plan = replace(
            self.plan,
            variants=(*self.plan.variants, *own.variants),
            trials=(*self.plan.trials, *own.trials),
        )
        self.statuses |= look(own, self.folder)
        return own.trials

    def _tell(self) -> None:
        """The study hears of every combination whose trials have all ended."""
        for number, trials in list(self._pending.items()):
            statuses = [self.statuses[trial.name] for trial in trials]
            if all(status.state in (State.DONE, State.FAILED) for status in statuses):
                assert self._study is not None
                values = self._values(statuses)
                state = TrialState.COMPLETE if values else TrialState.FAIL
                self._study.tell(
                    number, values, state, skip_if_finished=True
                )  # by another call at the same time
                del self._pending[number]

    def _values(self, statuses: Sequence[Status]) -> list[float] | None:
        """Each objective's mean over the seeds; None if a trial has failed, or there was none."""
        if not statuses or any(status.state is State.FAILED for status in statuses):
            return None
        means = []
        for name in self.settings.objective:
            figures = [status.folder.figure(name) for status in statuses]
            known = [figure for figure in figures if figure is not None]
            if len(known) < len(figures):
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
        try:
            study = optuna.load_study(storage=self._storage(), study_name=STUDY)
        except KeyError:  # killed before it was begun
            return None
        except ValueError as error:
            raise ConfigError(
                f"{self.journal} is damaged: {error}. Delete it to begin the search anew: the "
                "trials stay."
            ) from error
        self._check(study.user_attrs.get(ABOUT, self._about()), self._about())
        for asked in study.get_trials(deepcopy=False):
            if (
                asked.params.keys() == self.settings.axes.keys()
            ):  # or it was killed in the middle of asking
                trials = self._take(asked.number, asked.params)
                self._check(asked.user_attrs.get(TRIALS, _names(trials)), _names(trials))
                if not asked.state.is_finished():
                    self._pending[asked.number] = trials
        return study

    def _storage(self) -> JournalStorage:
        # Absolute, since the lock beside it is a symbolic link.
        return JournalStorage(JournalFileBackend(str(self.journal.resolve())))

    def _about(self) -> dict[str, Any]:
        axes = {
            key: axis.model_dump(mode="json", exclude_none=True)
            for key, axis in self.settings.axes.items()
        }
        return {
            "axes": axes,
            "objective": self.settings.objective,
            "seeds": self.plan.maker.spec.seeds,
        }

    def _check(self, before: object, now: object) -> None:
        if before != now:
            raise ConfigError(
                Problem(
                    "search.optuna",
                    "its axes, objective, seeds or recipe are not those of the study in "
                    f"{self.journal}; going on "
                    "would be neither one nor the other.",
                    self.plan.maker.layer.origin(("search", "optuna")),
                    "Take the change back, choose another folder with --out, or delete that file "
                    "to begin the search "
                    "anew: finished trials stay and are not trained again.",
                )
            )

    def _check_axes(self) -> None:
        """What is wrong at the ends of the axes is told before anything is trained, unless a choice
        may right it."""
        problems = [list(self._problems_at(end)) for end in (0, 1)]
        choices = any(axis.choice for axis in self.settings.axes.values())
        if all(problems) or (any(problems) and not choices):
            raise mistakes(
                list(dict.fromkeys(problem for at_end in problems for problem in at_end))
            )

    def _problems_at(self, end: int) -> Iterator[Problem]:
        try:
            variant = self.plan.maker.variant(
                {key: axis.ends[end] for key, axis in self.settings.axes.items()}
            )
        except ConfigError as error:
            yield from error.problems
            return
        for name in self.settings.objective:
            if name.endswith(AVERAGED) and not variant.recipe.wa:
                source = self.plan.maker.layer.origin(("search", "optuna", "objective"))
                message = f"{name} is of averaged weights, and the recipe averages none."
                yield Problem(
                    "search.optuna.objective",
                    message,
                    source,
                    "Set wa: true, or take another objective.",
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises `RunFolderError` for what the disk refuses."""
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                _mend(self.journal)
            raise RunFolderError(f"cannot write {self.journal}: {error.strerror}.") from error


def _mend(journal: Path) -> None:
    """Cut off a line that a full disk left unfinished: Optuna would write on behind it, and read
    neither any more."""
    text = journal.read_bytes()
    with journal.open("r+b") as file:
        file.truncate(text.rfind(b"\n") + 1)


def _names(trials: Sequence[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def _distribution(axis: Draw) -> BaseDistribution:
    """Optuna's word for what an axis is drawn from. A choice may be anything, so Optuna gets to see
    it as JSON."""
    if axis.choice is not None:
        return CategoricalDistribution([json.dumps(value, default=str) for value in axis.choice])
    if axis.integer is not None:
        return IntDistribution(*axis.integer)
    low, high = axis.ends
    return FloatDistribution(low, high, log=axis.log is not None)


def _value(axis: Draw, given: Any) -> Any:
    """The recipe's value for what Optuna gives."""
    return json.loads(given) if axis.choice is not None else given
