"""The few figures that a script asks for first, in one form for `rpat eval --json` and `rpat train
--json`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import parse_evaluation
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.records import eval_file
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.report import Report

FORMAT = 1

VERDICT = "verdict"
"""The key of that diagnostic in an evaluation's file."""


def of_evaluations(files: Sequence[Path], union: ThreatUnion | None = None) -> dict[str, Any]:
    """The first of the evaluations; the others, which have the same keys, in `others`. Accuracies
    are fractions; nothing is said image by image.

    `union` is over the threats of the files. Raises `DamagedEvalError`.
    """
    folder = RunFolder(files[0].parent.parent)
    first, *others = [_of_one(path) for path in files]
    return {
        "headline_format": FORMAT,
        "run": str(folder.path),
        **first,
        "union": None if union is None else _of_union(union),
        "others": others,
        "files": {
            "evaluations": [str(path) for path in files],
            "report": str(folder.html) if folder.html.exists() else None,
        },
    }


def of_report(report: Report) -> dict[str, Any]:
    """A training: first its best epoch under its own threat, then its other evaluations. Raises
    `RunFolderError`, also where there is none."""
    threat = asdict(report.threat)
    named = dict.fromkeys(result.evaluation for result in report.results)
    if not named:
        message = f"{report.path} has no evaluation that can be read."
        raise RunFolderError(f"{message} Measure it: rpat eval {report.path}")
    files = [Path(report.path) / "evals" / name for name in named]

    def later(path: Path) -> tuple[bool, bool]:
        file = eval_file.read(path)
        return file.checkpoint != "best", file.record["threat"] != threat

    unions = [each.union for each in report.unions if each.checkpoint == "best"]
    return of_evaluations(sorted(files, key=later), unions[0] if unions else None)


def _of_one(path: Path) -> dict[str, Any]:
    file = eval_file.read(path)
    found = parse_evaluation(file)
    unattacked = [] if found.attacks else ["no attack was run: robust_acc is clean_acc"]
    return {
        "checkpoint": file.checkpoint,
        "epoch": file.epoch,
        "model": {"name": file.record["model"]["name"]},
        "data": {"name": file.data, "split": "test", "n": found.n},
        "threat": asdict(found.threat),
        "n": found.n,
        "limit": found.limit,
        "clean_acc": found.clean.value,
        "clean_interval_95": list(found.clean.interval),
        "robust_acc": found.robust.value,
        "robust_interval_95": list(found.robust.interval),
        "attacks": [_of_attack(result) for result in found.results],
        "verdict": file.diagnostic(VERDICT)["level"] if file.has_diagnostic(VERDICT) else None,
        "remarks": [*file.remarks, *unattacked],
    }


def _of_attack(result: AttackResult) -> dict[str, Any]:
    return {
        "label": result.label,
        "robust_acc": result.robust_acc,
        "interval_95": list(result.accuracy.interval),
        "seconds": float(result.seconds),
        "forward": result.forward,
        "backward": result.backward,
        "flags": list(result.flags),
    }


def _of_union(union: ThreatUnion) -> dict[str, Any]:
    return {key: value for key, value in union.to_dict().items() if key != "correct_after"}
