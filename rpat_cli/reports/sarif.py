"""SARIF 2.1.0 (OASIS, 2020): what code scanning, of GitHub and others, shows as alerts."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rpat_cli.reports.cases import RULES, Case, Rule, Told
from rpat_cli.version import __version__

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"PASS": "none", "WARN": "warning", "FAIL": "error"}


def sarif(told: Told) -> str:
    """Only what is to be acted on: whatever did not pass."""
    open_cases = [case for case in told.cases if case.level != "PASS"]
    rules = list(dict.fromkeys([*RULES, *(case.rule for case in open_cases)]))
    seen: Counter[tuple[str, str]] = Counter()
    results = []
    for case in open_cases:
        about = (case.rule.id, case.subject)
        results.append(_result(case, rules, told.model, seen[about]))
        seen[about] += 1
    driver = {"name": "rpat", "version": __version__, "rules": list(map(_rule, rules))}
    run = {
        "tool": {"driver": driver},
        # GitHub closes the alerts of the same category that are missing: each model has its own.
        "automationDetails": {"id": f"rpat/{told.model}/"},
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "properties": {"figures": told.figures, "evaluations": told.files},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.name},
        "fullDescription": {"text": rule.name},
        "help": {"text": rule.help},
    }


def _result(case: Case, rules: Sequence[Rule], model: str, number: int) -> dict[str, Any]:
    """Code scanning shows nothing without a place: it is the model, which keeps its path from run
    to run. The fingerprint says that it is the same alert: `number` counts, from 0, those that
    have the same rule and subject, and the figures in a message may change."""
    content = "\n".join((case.rule.id, case.subject, model, *([str(number)] if number else [])))
    place = {"artifactLocation": {"uri": model}, "region": {"startLine": 1}}
    return {
        "ruleId": case.rule.id,
        "ruleIndex": rules.index(case.rule),
        "level": LEVELS[case.level],
        "message": {"text": case.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "primaryLocationLineHash": hashlib.sha256(content.encode()).hexdigest()
        },
    }
