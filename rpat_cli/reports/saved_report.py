"""What a `report.json` says, read without torch: the accuracies of each checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from rpat_cli.attacks.threat import parse_threat
from rpat_cli.records.regular import read_regular
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.text import show_number

AUTOATTACK = "autoattack"
"""The label of the standard AutoAttack."""

UNION = "union"
"""The metric of images that are right under all of several threats."""

Results = Mapping[str, Mapping[str, float]]
"""Accuracies: checkpoint ("best", "last") -> label of the attack -> fraction."""

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading such a file, or what is in it, raises if it is missing or something else."""


def read_saved_report(folder: RunFolder) -> dict[str, Any]:
    """The JSON object as `write_report` wrote it; not checked here. Raises one of `DAMAGE`."""
    report = json.loads(read_regular(folder.report))
    if not isinstance(report, dict):
        raise ValueError("it is not a JSON object")
    return report


def accuracies(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What a report holds for the recipe's own threat model, and under several threats: the worst
    case under each, and their union."""
    own = report["recipe"]["threat"]
    if several := report["recipe"].get("eval_threats"):  # the labels of attacks mean the first
        own = dict(zip(("norm", "eps"), parse_threat(several[0]), strict=True))
    found: dict[str, dict[str, float]] = {}
    for result in report["results"]:
        if result["threat"] is None or result["threat"] == {"norm": own["norm"], "eps": own["eps"]}:
            found.setdefault(result["checkpoint"], {})[result["label"]] = result["acc"]
    for union in report.get("unions", ()):
        found.setdefault(union["checkpoint"], {})[UNION] = union["robust_acc"]
        for part in union["threats"]:
            label = threat_label(part["norm"], part["eps"])
            found[union["checkpoint"]][label] = part["robust_acc"]
    return found


def threat_label(norm: str, eps: float) -> str:
    """`Linf:8/255`"""
    return f"{norm}:{show_number(eps)}"
