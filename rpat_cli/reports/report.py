"""What one run found, gathered from its folder: the one source of the tables, of report.json and of
report.html."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.callbacks import read_metrics
from rpat_cli.engine.loop import AVERAGED
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.evaluation.results import (
    AUTOATTACK,
    Evaluation,
    StageResult,
    strength,
    worst_class_dict,
)
from rpat_cli.evaluation.statistics import (
    Accuracy,
    confusion,
    mean_acc,
    nrr,
    per_class_accuracy,
)
from rpat_cli.evaluation.suite import list_attacks
from rpat_cli.recipe.layers import read_yaml, resolve, summary
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.run_folder import RunFolder, write_whole
from rpat_cli.reports.looks import READERS, Look

REPORT_FORMAT = 1


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint of the run; `epoch` counts from 1. `same_weights`: it equals the one named
    before it."""

    name: str
    epoch: int
    same_weights: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} (epoch {self.epoch})"

    @property
    def ending(self) -> str:
        """Of which model it is: "" the trained one, "_wa" its average."""
        return AVERAGED if self.name.endswith(AVERAGED) else ""


@dataclass(frozen=True)
class Finding:
    """What one attack left of one checkpoint. `threat` is None for "clean", which has none.

    `label` tells it from other uses of the same `attack` (pgd-20, pgd-50). `per_class` is in order
    of the labels; `confusion` counts (true, predicted) classes; `calibration` is None where
    confidences were not recorded; `forward`, `backward` are passes of single images; `evaluation`
    is the file in `evals/` that this stands in.
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

    def to_dict(self) -> dict[str, Any]:
        values = {
            **vars(self),
            "threat": self.threat and asdict(self.threat),
            "settings": dict(self.settings),
        }
        for name in ("accuracy", "confusion", "calibration"):
            del values[name]
        values["acc"] = self.accuracy.value
        values["interval_95"] = list(self.accuracy.interval)
        values["n"] = self.accuracy.n
        values["per_class"] = [{"correct": item.correct, "n": item.n} for item in self.per_class]
        values["worst_class"] = worst_class_dict(self.per_class)
        values["ece"] = self.calibration and self.calibration.ece
        values["stages"] = [stage.to_dict() for stage in self.stages]
        return values


@dataclass(frozen=True)
class Row:
    """The findings on one checkpoint under one threat, by the attack's label; "clean" stands in
    every row."""

    checkpoint: CheckpointRef
    threat: Threat
    findings: Mapping[str, Finding]

    @property
    def _pair(self) -> tuple[float, float] | None:
        """Clean and AutoAttack accuracy, if both are there and of equally many images."""
        clean, robust = self.findings.get("clean"), self.findings.get(AUTOATTACK)
        if clean is None or robust is None or clean.accuracy.n != robust.accuracy.n:
            return None
        return clean.accuracy.value, robust.accuracy.value

    @property
    def mean(self) -> float | None:
        return mean_acc(*self._pair) if self._pair else None

    @property
    def nrr(self) -> float | None:
        return nrr(*self._pair) if self._pair else None

    @property
    def strongest(self) -> Finding | None:
        """The attack that left least; AutoAttack among equals."""
        attacked = [finding for label, finding in self.findings.items() if label != "clean"]
        return min(
            attacked, key=lambda finding: strength(finding.label, finding.accuracy), default=None
        )

    def to_dict(self) -> dict[str, Any]:
        """What is computed over several findings, and the confusion under the strongest attack, as
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
    """A run as people want to read it. Fractions everywhere, per cent only on screen.

    `epochs` are the records of metrics.jsonl. `seconds`, `forward`, `backward` are those of the
    training; passes are None where they were not recorded. `environment` is that of the training,
    or else of the newest evaluation. `looks` are the newest closer looks (a key of `READERS` each)
    at weights that are still there.
    """

    path: str
    recipe: Recipe
    recipe_yaml: str
    summary: Mapping[str, str]
    environment: Mapping[str, Any]
    device: str
    class_names: tuple[str, ...]
    epochs: tuple[Mapping[str, Any], ...]
    best_epoch: int | None
    checkpoints: tuple[CheckpointRef, ...]
    findings: tuple[Finding, ...]
    looks: Mapping[str, Look]
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def threat(self) -> Threat:
        return Threat(self.recipe.threat.norm, self.recipe.threat.eps)

    @property
    def seconds(self) -> float:
        return float(sum(record["seconds"] for record in self.epochs))

    @property
    def forward(self) -> int | None:
        return _total(self.epochs, "forward")

    @property
    def backward(self) -> int | None:
        return _total(self.epochs, "backward")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The attacks of the whole report: "clean" first, then from weak to strong as `rpat eval`
        lists them."""
        known = list(list_attacks())
        names = {
            finding.label: finding.label if finding.label in known else finding.attack
            for finding in self.findings
        }
        return tuple(
            sorted(
                names,
                key=lambda label: (
                    known.index(names[label]) if names[label] in known else len(known)
                ),
            )
        )

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One row for each checkpoint and threat that were evaluated; the recipe's own threat comes
        first."""
        own = self.threat
        threats = dict.fromkeys(
            finding.threat for finding in self.findings if finding.threat not in (None, own)
        )
        rows = []
        for threat in (own, *filter(None, threats)):
            for checkpoint in self.checkpoints:
                found = {
                    f.label: f
                    for f in self.findings
                    if f.checkpoint == checkpoint.name and f.threat in (None, threat)
                }
                if found and (threat == own or any(finding.threat for finding in found.values())):
                    ordered = {label: found[label] for label in self.labels if label in found}
                    rows.append(Row(checkpoint, threat, ordered))
        return tuple(rows)

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
                "epochs": len(self.epochs),
                "epochs_planned": self.recipe.epochs,
                "best_epoch": self.best_epoch,
                "seconds": self.seconds,
                "forward": self.forward,
                "backward": self.backward,
                "records": [dict(record) for record in self.epochs],
            },
            "checkpoints": [asdict(checkpoint) for checkpoint in self.checkpoints],
            "results": [finding.to_dict() for finding in self.findings],
            "scores": [row.to_dict() for row in self.rows],
            "closer_looks": {name: look.to_dict() for name, look in self.looks.items()},
            "remarks": list(self.remarks),
        }


def _total(records: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """None rather than a sum that leaves some epochs out."""
    values = [record.get(key) for record in records]
    return (
        sum(int(value) for value in values if value is not None)
        if values and None not in values
        else None
    )


# ---- gathering


@dataclass(frozen=True)
class _EvalFile:
    """One file of `evals/`, read."""

    file: Path
    created: str
    checkpoint: str
    epoch: int
    data: str
    class_names: tuple[str, ...]
    environment: Mapping[str, Any]
    device: str
    evaluation: Evaluation
    looks: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path) -> "_EvalFile":
        record = json.loads(file.read_text(encoding="utf-8"))
        datetime.fromisoformat(record["created"])
        return cls(
            file=file,
            created=record["created"],
            checkpoint=record["checkpoint"],
            epoch=record["epoch"],
            data=record["data"]["name"],
            class_names=tuple(record["data"].get("class_names", ())),
            environment=record["environment"],
            device=record["device"],
            evaluation=Evaluation.from_dict(record),
            looks={name: record[name] for name in READERS if name in record},
        )

    @property
    def age(self) -> tuple[datetime, int]:
        """For sorting, oldest first; two of the same second are told apart by the file system."""
        return datetime.fromisoformat(self.created).astimezone(), self.file.stat().st_mtime_ns


def build_report(folder: RunFolder) -> Report:
    """Gather a run folder. Unreadable parts are named among the remarks; only the recipe must be
    there.

    Where several evaluations hold the same attack on the same weights, the newest counts; those of
    weights that further training has replaced, and those on other data, do not. Raises
    `ConfigError` for a recipe that cannot be read.
    """
    remarks: list[str] = []
    recipe = resolve([read_yaml(folder.recipe)])
    epochs = tuple(read_metrics(folder.metrics))
    saved = _facts_of_checkpoint(folder, remarks)
    checkpoints = _checkpoints(epochs, saved)
    every = _read_evals(folder, remarks)
    files = _fitting(every, recipe, checkpoints, remarks)
    findings = _newest_findings(files, checkpoints)
    newest = files[-1] if files else None
    class_names = (
        newest.class_names if newest and newest.class_names else tuple(saved.get("class_names", ()))
    )
    return Report(
        path=str(folder.path),
        recipe=recipe,
        recipe_yaml=folder.recipe.read_text(encoding="utf-8"),
        summary=summary(recipe),
        environment=saved.get("environment") or (newest.environment if newest else {}),
        device=newest.device if newest else "",
        class_names=class_names,
        epochs=epochs,
        best_epoch=_best_epoch(epochs),
        checkpoints=checkpoints,
        findings=findings,
        looks=_newest_looks(every, recipe, checkpoints, remarks),
        remarks=(*_remarks_on_training(recipe, epochs), *remarks, *_remarks_on_findings(findings)),
    )


def _facts_of_checkpoint(folder: RunFolder, remarks: list[str]) -> dict[str, Any]:
    """What the last checkpoint says beside its weights, which stay on disk."""
    import torch

    path = folder.checkpoint("last")
    if not path.exists():
        return {}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {
            "class_names": list(content["class_names"]),
            "environment": dict(content["environment"]),
            "under_way": content["training"]["step"] > 0,
        }
    except Exception:  # torch raises a dozen kinds for a damaged file; the report can do without it
        remarks.append(
            f"checkpoints/{path.name} cannot be read, so the environment of the training is not "
            "known"
        )
        return {}


def _best_epoch(epochs: Sequence[Mapping[str, Any]], ending: str = "") -> int | None:
    """The epoch that validation chose: by robust accuracy, then clean accuracy; the earliest of
    equals."""
    robust, clean = f"robust_acc{ending}", f"clean_acc{ending}"
    validated = [record for record in epochs if robust in record.get("validation", {})]
    if not validated:
        return None
    best = max(validated, key=lambda r: (r["validation"][robust], r["validation"].get(clean, 0.0)))
    return int(best["epoch"])


def _checkpoints(
    epochs: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]
) -> tuple[CheckpointRef, ...]:
    """Best and last of the trained model, then of its average once validation has seen one."""
    if not epochs:
        return ()
    last, found = int(epochs[-1]["epoch"]), []
    for ending in ("", AVERAGED):
        best = _best_epoch(epochs, ending)
        found += [CheckpointRef(f"best{ending}", best)] if best is not None else []
        # A run stopped within an epoch has moved on from its last whole epoch.
        same = best == last and not saved.get("under_way", False)
        if best is not None or not ending:
            found.append(CheckpointRef(f"last{ending}", last, same_weights=same))
    return tuple(found)


def _read_evals(folder: RunFolder, remarks: list[str]) -> list[_EvalFile]:
    """All evaluations that can be read, oldest first."""
    files = []
    for path in sorted(folder.evals.glob("*.json")):
        try:
            files.append(_EvalFile.read(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RpatError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            remarks.append(f"evals/{path.name} is damaged and was left out ({reason})")
    return sorted(files, key=lambda file: file.age)


def _fitting(
    files: Iterable[_EvalFile],
    recipe: Recipe,
    checkpoints: Sequence[CheckpointRef],
    remarks: list[str],
) -> list[_EvalFile]:
    """Those on the run's own data, all of it, and on weights that are still there."""
    fitting, limited = [], []
    for file in files:
        if file.data != recipe.data.name:
            remarks.append(
                f"evals/{file.file.name} is on other data ({file.data}) and is not part of this "
                "report"
            )
        elif file.evaluation.limit is not None:
            limited.append(f"evals/{file.file.name} ({file.evaluation.limit})")
        elif not any(_measures(file, checkpoint, checkpoints) for checkpoint in checkpoints):
            remarks.append(
                f"evals/{file.file.name} measured {file.checkpoint} at epoch {file.epoch}, which "
                "further training has "
                "replaced; it is not part of this report"
            )
        else:
            fitting.append(file)
    if limited:
        remarks.append(
            "accuracies on some of the test images are not part of this report: "
            f"{', '.join(limited)}"
        )
    return fitting


def _measures(
    file: _EvalFile, checkpoint: CheckpointRef, checkpoints: Sequence[CheckpointRef]
) -> bool:
    """Is the evaluation one of these weights? Best and last of the same epoch share theirs."""
    siblings = [other for other in checkpoints if other.ending == checkpoint.ending]
    shared = any(other.same_weights for other in siblings)
    named = file.checkpoint == checkpoint.name or (
        shared and file.checkpoint in [other.name for other in siblings]
    )
    return named and file.epoch == checkpoint.epoch


def _newest_findings(
    files: Iterable[_EvalFile], checkpoints: Sequence[CheckpointRef]
) -> tuple[Finding, ...]:
    newest: dict[tuple[str, str, Threat | None], Finding] = {}
    for file in files:  # oldest first, so that newer ones replace them
        for checkpoint in checkpoints:
            if _measures(file, checkpoint, checkpoints):
                for finding in _findings_in(file, checkpoint.name):
                    newest[finding.checkpoint, finding.label, finding.threat] = finding
    return tuple(newest.values())


def _newest_looks(
    files: Iterable[_EvalFile],
    recipe: Recipe,
    checkpoints: Sequence[CheckpointRef],
    remarks: list[str],
) -> dict[str, Look]:
    """Each closer look from the newest file that has it, be it of some of the test images: it says
    of how many."""
    newest: dict[str, Look] = {}
    for file in files:
        measured = [each.title for each in checkpoints if _measures(file, each, checkpoints)]
        for name, content in (
            file.looks.items() if measured and file.data == recipe.data.name else ()
        ):
            try:
                newest[name] = Look(measured[0], file.file.name, content, READERS[name](content))
            except (LookupError, TypeError, ValueError, AttributeError, RpatError):
                remarks.append(
                    f"the {name} in evals/{file.file.name} cannot be read and was left out"
                )
    return {name: newest[name] for name in READERS if name in newest}


def _findings_in(file: _EvalFile, checkpoint: str) -> Iterable[Finding]:
    """Clean, which every evaluation has measured, and its attacks."""
    evaluation = file.evaluation
    y, classes = evaluation.y, max(len(file.class_names), evaluation.class_count)
    right = evaluation.clean_predicted == evaluation.y
    origin: dict[str, Any] = {
        "checkpoint": checkpoint,
        "evaluation": file.file.name,
        "created": file.created,
    }
    yield Finding(
        attack="clean",
        label="clean",
        threat=None,
        accuracy=evaluation.clean,
        per_class=tuple(per_class_accuracy(right, y, classes)),
        confusion=confusion(y, evaluation.clean_predicted, classes),
        calibration=evaluation.clean_calibration,
        settings={},
        **origin,
    )
    for result in evaluation.attacks:
        yield Finding(
            attack=result.name,
            label=result.label,
            threat=result.threat,
            accuracy=result.accuracy,
            per_class=tuple(per_class_accuracy(result.correct_after, y, classes)),
            confusion=confusion(y, result.predicted, classes),
            calibration=result.calibration,
            settings=result.settings,
            stages=result.stages,
            seconds=result.seconds,
            forward=result.forward,
            backward=result.backward,
            flags=result.flags,
            notes=result.notes,
            **origin,
        )


def _remarks_on_training(recipe: Recipe, epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(epochs) < recipe.epochs:
        return [f"the training stands at epoch {len(epochs)} of {recipe.epochs}"]
    return []


def _remarks_on_findings(findings: Sequence[Finding]) -> list[str]:
    """Flags and notes, each once with the checkpoints it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        for text in (*finding.flags, *finding.notes):
            about.setdefault((finding.label, text), []).append(finding.checkpoint)
    remarks = [
        f"{label} on {' and '.join(dict.fromkeys(names))}: {text}"
        for (label, text), names in about.items()
    ]
    counts = sorted({finding.accuracy.n for finding in findings})
    if len(counts) > 1:
        remarks.append(
            f"the figures are not all over the same images: {', '.join(map(str, counts))} of them"
        )
    return remarks


# ---- writing


def write_report(folder: RunFolder) -> Report:
    """Build the report and write report.json and report.html, each whole or not at all.

    Raises `RunFolderError` when the folder cannot be written: earlier reports are untouched then.
    """
    from rpat_cli.reports.html import render_html

    report = build_report(folder)
    write_whole(folder.report, json.dumps(report.to_dict(), indent=1))
    write_whole(folder.html, render_html(report))
    return report
