"""The evaluations of a run, each with the checkpoints that it is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.results import Evaluation, parse_evaluation
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records import eval_file
from rpat_cli.records.eval_file import THREATS, DamagedEvalError, EvalFile
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.report import CheckpointRef
from rpat_cli.reports.unions import CheckpointUnion


@dataclass(frozen=True)
class Measured:
    """An evaluation of the run, and the names of the checkpoints whose weights it measured."""

    file: EvalFile
    evaluation: Evaluation
    checkpoints: tuple[CheckpointRef, ...]

    @property
    def name(self) -> str:
        return f"evals/{self.file.path.name}"


def read_evaluations(
    folder: RunFolder, checkpoints: Sequence[CheckpointRef], remarks: list[str]
) -> list[Measured]:
    """All evaluations that can be read, oldest first."""
    files, damaged = eval_file.read_all(folder.evals)
    remarks += damaged
    every = []
    for file in files:
        try:
            evaluation = parse_evaluation(file)
        except DamagedEvalError as error:
            remarks.append(error.remark)
        else:
            measured = tuple(each for each in checkpoints if _is_of(file, each, checkpoints))
            every.append(Measured(file, evaluation, measured))
    return every


def _is_of(file: EvalFile, checkpoint: CheckpointRef, checkpoints: Sequence[CheckpointRef]) -> bool:
    """Is the evaluation one of these weights? Best and last of the same epoch share theirs."""
    if file.epoch != checkpoint.epoch:
        return False
    siblings = [other for other in checkpoints if other.suffix == checkpoint.suffix]
    shared = any(other.same_weights for other in siblings)
    return file.checkpoint == checkpoint.name or (
        shared and file.checkpoint in [other.name for other in siblings]
    )


def fitting(every: Iterable[Measured], recipe: Recipe, remarks: list[str]) -> list[Measured]:
    """Those on the run's own data, all of it, and on weights that are still there."""
    found, limited = [], []
    for each in every:
        if each.file.data != recipe.data.name:
            remarks.append(
                f"{each.name} is on other data ({each.file.data}) and is not part of this report"
            )
        elif each.evaluation.limit is not None:
            limited.append(f"{each.name} ({each.evaluation.limit})")
        elif not each.checkpoints:
            remarks.append(
                f"{each.name} measured {each.file.checkpoint} at epoch {each.file.epoch}, which "
                "further training has replaced; it is not part of this report"
            )
        else:
            found.append(each)
    if limited:
        remarks.append(
            "accuracies on some of the test images are not part of this report: "
            f"{', '.join(limited)}"
        )
    return found


def threats_of(record: Mapping[str, Any]) -> tuple[Threat, ...]:
    """The threats that an evaluation was asked for together with its own; empty where it was for
    one alone, or they cannot be read."""
    try:
        threats = tuple(Threat(str(each["norm"]), each["eps"]) for each in record[THREATS])
    except (LookupError, TypeError, RpatError):
        return ()
    return threats if len(threats) > 1 else ()


def newest_union(evaluations: Sequence[Measured]) -> ThreatUnion | None:
    """Of the evaluations of one checkpoint, the oldest first: the union of the newest group of
    threats of which all were measured on the same images."""
    for latest in reversed(evaluations):
        parts = []
        for threat in threats_of(latest.file.record):
            same = [each for each in evaluations if _belongs(each, latest, threat)]
            parts += [each.evaluation for each in same[-1:]]
        if parts and len(parts) == len(threats_of(latest.file.record)):
            return ThreatUnion.of(parts)
    return None


def _belongs(each: Measured, latest: Measured, threat: Threat) -> bool:
    return (
        each.evaluation.threat == threat
        and threats_of(each.file.record) == threats_of(latest.file.record)
        and each.file.fingerprint == latest.file.fingerprint
        and each.file.limit == latest.file.limit
        and each.evaluation.y.equal(latest.evaluation.y)
    )


def unions_of(evaluations: Sequence[Measured]) -> tuple[CheckpointUnion, ...]:
    """For every checkpoint, the oldest evaluation first."""
    by_name: dict[str, list[Measured]] = {}
    for each in evaluations:
        for checkpoint in each.checkpoints:
            by_name.setdefault(checkpoint.name, []).append(each)
    found = {name: newest_union(measured) for name, measured in by_name.items()}
    return tuple(CheckpointUnion(name, union) for name, union in found.items() if union)
