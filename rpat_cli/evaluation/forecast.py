"""How long the rest of a whole evaluation will take: the pace so far, and what each attack is known
to cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rpat_cli.evaluation.parallel.chunks import OnProgress, Progress
from rpat_cli.evaluation.suite import AttackSpec

STEP = 3.0
"""Forward passes that a step costs: one, and a backward pass, which takes about twice as long."""

QUERIES_IN_STEP: Mapping[str, float] = {"boundary": 1.0, "hopskipjump": 300.0}
"""Forward passes in a step of those that see the predicted class only."""


@dataclass(frozen=True)
class Load:
    """One stage of one attack of the suite; `passes` are forward passes for each image that it
    faces, or as long."""

    label: str
    stage: str
    passes: float


def loads_of(spec: AttackSpec, stages: Sequence[str], settings: Mapping[str, Any]) -> list[Load]:
    """What an attack with these `stages` and resolved `settings` will cost, about."""
    if spec.name == "autoattack":
        return [
            Load(spec.label, stage, _passes_in_autoattack(stage, settings["attacks"][stage]))
            for stage in stages
        ]
    return [Load(spec.label, stage, _passes(spec.name, settings)) for stage in stages]


def _passes(name: str, settings: Mapping[str, Any]) -> float:
    if "queries" in settings:
        return float(settings["queries"])
    return float(
        settings.get("steps", 1) * settings.get("restarts", 1) * QUERIES_IN_STEP.get(name, STEP)
    )


def _passes_in_autoattack(stage: str, settings: Mapping[str, Any]) -> float:
    restarts = settings.get("n_restarts", 1)
    if "n_queries" in settings:
        return float(settings["n_queries"] * restarts)
    targets = settings.get("n_target_classes", 1) if stage.endswith("-t") else 1
    return float(settings["n_iter"] * restarts * targets * settings.get("eot_iter", 1) * STEP)


@dataclass
class Forecast:
    """Passes progress on, with the seconds that everything will still take (`Progress.left`).

    `clean_correct` images are right without an attack: so many will face each attack of the suite
    at first.
    """

    loads: Sequence[Load]
    n: int
    clean_correct: int
    tell: OnProgress
    _pace: float | None = field(default=None, init=False)

    def __call__(self, progress: Progress) -> None:
        here = next(
            i for i, load in enumerate(self.loads) if (load.label, load.stage) == _place(progress)
        )
        if progress.eta and progress.done < progress.total:
            self._pace = progress.eta / ((progress.total - progress.done) * self.loads[here].passes)
        self.tell(replace(progress, left=self._left(here, progress)))

    def _left(self, here: int, progress: Progress) -> float | None:
        if self._pace is None:
            return None
        standing = (
            progress.robust_acc * self.n
        )  # what the later stages of this attack will face, or fewer
        rest = (progress.total - progress.done) * self.loads[here].passes
        for load in self.loads[here + 1 :]:
            rest += load.passes * (standing if load.label == progress.label else self.clean_correct)
        return rest * self._pace


def _place(progress: Progress) -> tuple[str, str]:
    return progress.label, progress.stage
