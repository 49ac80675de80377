"""How long the rest of an evaluation will take: the pace so far, and the cost of each attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rpat_cli.evaluation.parallel.chunks import OnProgress, Progress
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.words import row_of_stage


@dataclass(frozen=True)
class Load:
    """One stage of one attack of the suite; `passes` are forward passes for each image that it
    faces, or as long."""

    label: str
    stage: str
    passes: float


def loads_of(spec: AttackSpec, stages: Sequence[str], settings: Mapping[str, Any]) -> list[Load]:
    """What an attack with these `stages`, each a name of the catalogue, will cost.

    `settings` are resolved; where an attack has several stages, they hold those of each in
    `attacks`.
    """
    own = settings.get("attacks", {})
    rows = {stage: row_of_stage(spec.name, stage) for stage in stages}
    return [
        Load(spec.label, stage, row.passes(own.get(stage, settings))) for stage, row in rows.items()
    ]


@dataclass
class Forecast:
    """Passes progress on, with the seconds that everything will still take (`Progress.left`).

    `clean_correct` of the `n` images are classified correctly without an attack: so many will face
    each attack of the suite at first.
    """

    loads: Sequence[Load]
    n: int
    clean_correct: int
    on_progress: OnProgress
    _pace: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._places = [(load.label, load.stage) for load in self.loads]

    def __call__(self, progress: Progress) -> None:
        here = self._places.index((progress.label, progress.stage))
        if progress.eta and progress.done < progress.total:
            self._pace = progress.eta / ((progress.total - progress.done) * self.loads[here].passes)
        self.on_progress(replace(progress, left=self._left(here, progress)))

    def _left(self, here: int, progress: Progress) -> float | None:
        if self._pace is None:
            return None
        rest = (progress.total - progress.done) * self.loads[here].passes
        still_robust = progress.robust_acc * self.n
        for load in self.loads[here + 1 :]:
            # The later stages of this attack face what is still robust, or fewer.
            faced = still_robust if load.label == progress.label else self.clean_correct
            rest += load.passes * faced
        return rest * self._pace
