"""What one run found: the one source of the tables, of report.json and of report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.blocks import Examples
from rpat_cli.evaluation.attack_result import StageResult
from rpat_cli.evaluation.audit import Audit
from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.evaluation.results import AUTOATTACK, strength, worst_class_dict
from rpat_cli.evaluation.statistics import Accuracy, mean_acc, nrr
from rpat_cli.evaluation.suite import list_attacks
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.segments import Segment
from rpat_cli.reports.leaderboard import ALL, NO_EXTRA, Standing, standing
from rpat_cli.reports.saved_diagnostic import SavedDiagnostic
from rpat_cli.reports.test_looks import TestLook
from rpat_cli.reports.unions import CheckpointUnion

REPORT_FORMAT = 1


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint of the run; `epoch` counts from 1.

    `same_weights`: it equals the one listed before it.
    """

    name: str
    epoch: int
    same_weights: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} (epoch {self.epoch})"

    @property
    def suffix(self) -> str:
        """The model that it belongs to: "" is the trained one, `AVERAGED` its average."""
        return AVERAGED if self.name.endswith(AVERAGED) else ""


@dataclass(frozen=True)
class AttackSummary:
    """What one attack left of one checkpoint. `threat` is None for "clean", which has none.

    `label` tells it from other uses of the same `attack` (pgd-20, pgd-50). `per_class` is in the
    order of the labels; `confusion` (classes, classes) counts true by predicted classes;
    `calibration` is None where confidences were not recorded; `forward` and `backward` are passes
    of single images; `evaluation` is the name of its file in `evals/`, `created` when that was
    written (ISO 8601).
    """

    checkpoint: str
    attack: str
    label: str
    threat: Threat | None
    accuracy: Accuracy
    per_class: tuple[Accuracy, ...]
    confusion: Tensor = field(repr=False, compare=False)
    calibration: Calibration | None
    evaluation: str
    created: str
    settings: Mapping[str, Any]
    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    audit: Audit | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON. The confusion is left out: it is in the scores."""
        return {
            "checkpoint": self.checkpoint,
            "attack": self.attack,
            "label": self.label,
            "threat": self.threat and asdict(self.threat),
            "acc": self.accuracy.value,
            "interval_95": list(self.accuracy.interval),
            "n": self.accuracy.n,
            "per_class": [{"correct": item.correct, "n": item.n} for item in self.per_class],
            "worst_class": worst_class_dict(self.per_class),
            "ece": self.calibration and self.calibration.ece,
            "evaluation": self.evaluation,
            "created": self.created,
            "settings": dict(self.settings),
            "stages": [stage.to_dict() for stage in self.stages],
            "seconds": self.seconds,
            "forward": self.forward,
            "backward": self.backward,
            "flags": list(self.flags),
            "notes": list(self.notes),
            **({"audit": self.audit.to_dict()} if self.audit else {}),
        }


@dataclass(frozen=True)
class ReportRow:
    """The results of one checkpoint under one threat, by the attack's label.

    Every row has "clean", whatever its threat.
    """

    checkpoint: CheckpointRef
    threat: Threat
    results: Mapping[str, AttackSummary]

    @property
    def _pair(self) -> tuple[float, float] | None:
        """Clean and AutoAttack accuracy, if both were measured on equally many images."""
        clean, robust = self.results.get("clean"), self.results.get(AUTOATTACK)
        if clean is None or robust is None or clean.accuracy.n != robust.accuracy.n:
            return None
        return clean.accuracy.value, robust.accuracy.value

    @property
    def mean(self) -> float | None:
        """(clean + AutoAttack) / 2, a fraction; None unless both are there."""
        return mean_acc(*self._pair) if self._pair else None

    @property
    def nrr(self) -> float | None:
        """2 clean AutoAttack / (clean + AutoAttack), a fraction; None unless both are there."""
        return nrr(*self._pair) if self._pair else None

    @property
    def strongest(self) -> AttackSummary | None:
        """The attack that left least; AutoAttack among equals."""
        attacks = [result for label, result in self.results.items() if label != "clean"]
        return min(
            attacks, key=lambda result: strength(result.label, result.accuracy), default=None
        )

    def to_dict(self) -> dict[str, Any]:
        """What is computed over several results, and the confusion under the strongest attack, as
        plain builtins."""
        return {
            "checkpoint": self.checkpoint.name,
            "threat": asdict(self.threat),
            "mean": self.mean,
            "nrr": self.nrr,
            "strongest": self.strongest and self.strongest.label,
            "confusion": self.strongest and self.strongest.confusion.tolist(),
        }


@dataclass(frozen=True)
class Report:
    """A run as people want to read it. Accuracies are fractions, per cent only on screen.

    `epochs` are the records of metrics.jsonl, `epochs_done` how many epochs there were, also where
    records are lost; `segments` are there if its last checkpoint is. `test_looks`: every evaluation
    on test images. `trained_in` is the environment of the training, empty
    where it is not known; `environment` then is that of the newest evaluation.
    `diagnostics` are the newest ones, by key, of weights that are still there.
    `gallery`: examples of the newest evaluation under the recipe's threat that has any.
    """

    path: str
    recipe: Recipe
    recipe_yaml: str
    summary: Mapping[str, str]
    environment: Mapping[str, Any]
    trained_in: Mapping[str, Any]
    device: str
    class_names: tuple[str, ...]
    epochs: tuple[Mapping[str, Any], ...]
    best_epoch: int | None
    epochs_done: int
    segments: tuple[Segment, ...]
    checkpoints: tuple[CheckpointRef, ...]
    results: tuple[AttackSummary, ...]
    test_looks: tuple[TestLook, ...]
    diagnostics: Mapping[str, SavedDiagnostic]
    remarks: tuple[str, ...]
    gallery: Examples | None = None
    unions: tuple[CheckpointUnion, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def threat(self) -> Threat:
        """The recipe's own."""
        return Threat(self.recipe.threat.norm, self.recipe.threat.eps)

    @property
    def seconds(self) -> float:
        """Of the training, without validation."""
        return float(sum(record["seconds"] for record in self.epochs))

    @property
    def forward(self) -> int | None:
        """Forward passes of batches in training; None where they were not recorded."""
        return total(self.epochs, "forward")

    @property
    def backward(self) -> int | None:
        """Backward passes of batches in training; None where they were not recorded."""
        return total(self.epochs, "backward")

    @property
    def lines_below(self) -> list[str]:
        """How much lower AutoAttack may be than the accuracy of each audit; and what is right under
        several threats; and where it would stand on RobustBench."""
        audits = [
            f"{result.label} on {row.checkpoint.title}: {result.audit.headline}"
            for row in self.rows
            for result in row.results.values()
            if result.audit
        ]
        unions = [union.line for union in self.unions]
        return [*audits, *unions, *(standing.line for standing in self.standings)]

    @property
    def standings(self) -> list[Standing]:
        """Where the checkpoints that AutoAttack was run on, on all test images, would stand on
        RobustBench, if it has a leaderboard for their data set and threat."""
        # Weights to begin with may have seen other images.
        has_extra = self.recipe.data.extra.paths or self.recipe.init
        extra = ALL if has_extra else NO_EXTRA
        found = []
        for row in self.rows:
            strongest = row.strongest
            if strongest is None or AUTOATTACK not in row.results or row.checkpoint.same_weights:
                continue
            accuracy, threat = strongest.accuracy, row.threat
            place = (row.checkpoint.title, self.recipe.data.name, threat.norm, threat.eps, extra)
            found.append(standing(*place, accuracy.value, accuracy.interval))
        return [each for each in found if each is not None]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The attacks of the whole report: "clean" first, then from weak to strong as `rpat eval`
        lists them."""
        # The sort is stable: attacks that are not in the list keep the order of evaluation, and so
        # do several uses of one attack (pgd-20, pgd-50).
        places = {name: place for place, name in enumerate(list_attacks())}
        by_label = {result.label: result for result in self.results}

        def place(label: str) -> int:
            attack = label if label in places else by_label[label].attack
            return places.get(attack, len(places))

        return tuple(sorted(by_label, key=place))

    @cached_property
    def rows(self) -> tuple[ReportRow, ...]:
        """One row for each checkpoint and threat that were evaluated; the recipe's own threat comes
        first."""
        threats = dict.fromkeys(
            [self.threat, *(result.threat for result in self.results if result.threat)]
        )
        rows = []
        for threat in threats:
            for checkpoint in self.checkpoints:
                row = self._row(checkpoint, threat)
                # "clean" alone makes a row under the recipe's threat only: it belongs to all.
                if row.results and (threat == self.threat or row.strongest):
                    rows.append(row)
        return tuple(rows)

    def _row(self, checkpoint: CheckpointRef, threat: Threat) -> ReportRow:
        found = {
            result.label: result
            for result in self.results
            if result.checkpoint == checkpoint.name and result.threat in (None, threat)
        }
        ordered = {label: found[label] for label in self.labels if label in found}
        return ReportRow(checkpoint, threat, ordered)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "format": REPORT_FORMAT,
            "run": self.path,
            "recipe": self.recipe.model_dump(mode="json"),
            "summary": dict(self.summary),
            "environment": dict(self.environment),
            "device": self.device,
            "class_names": list(self.class_names),
            "training": {
                "epochs": self.epochs_done,
                "epochs_planned": self.recipe.epochs,
                "best_epoch": self.best_epoch,
                "seconds": self.seconds,
                "forward": self.forward,
                "backward": self.backward,
                "records": [dict(record) for record in self.epochs],
                "segments": [segment.to_dict() for segment in self.segments],
            },
            "test_looks": [look.to_dict() for look in self.test_looks],
            "checkpoints": [asdict(checkpoint) for checkpoint in self.checkpoints],
            "results": [result.to_dict() for result in self.results],
            "unions": [union.to_dict() for union in self.unions],
            "standings": [standing.to_dict() for standing in self.standings],
            "scores": [row.to_dict() for row in self.rows],
            # The name that diagnostics had when the format was made.
            "closer_looks": {name: saved.to_dict() for name, saved in self.diagnostics.items()},
            "remarks": list(self.remarks),
        }


def total(records: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """The sum over all epochs; None rather than one that leaves some out."""
    values = [record.get(key) for record in records]
    if not values or None in values:
        return None
    return sum(int(value) for value in values if value is not None)
