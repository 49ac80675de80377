"""What stands at the top of a run's page: whether to trust it, what is worst, when, where, how
long."""

from collections.abc import Mapping
from typing import Any

from rpat_cli.diagnostics.blocks import Text
from rpat_cli.reports.report import Report
from rpat_cli.text import count, duration


def verdicts(report: Report) -> list[Text]:
    """The conclusions of all diagnostics that give one of PASS, WARN and FAIL."""
    found = []
    for saved in report.diagnostics.values():
        blocks = saved.result.section().blocks
        found += [block for block in blocks if isinstance(block, Text) and block.level]
    return found


def facts(report: Report) -> dict[str, str]:
    """Date, hardware and cost in words, by their headings; what is not known is left out."""
    evaluated = max((result.created for result in report.results), default="")
    found = {
        "trained": _day(report.environment.get("time")) if report.epochs_done else "",
        "evaluated": _day(evaluated),
        "hardware": _hardware(report.environment),
        "cost": _cost(report),
    }
    return {heading: text for heading, text in found.items() if text}


def _day(time: Any) -> str:
    """`2026-11-27 05:42` of an ISO 8601 time."""
    return str(time or "")[:16].replace("T", " ")


def _hardware(environment: Mapping[str, Any]) -> str:
    """`NVIDIA H100, 8 ranks` or `AMD EPYC, 2 threads`: of the training, if it is known."""
    gpu, ranks = environment.get("gpu"), environment.get("ranks") or 1
    device = gpu or environment.get("cpu")
    if not device:
        return ""
    parts = [str(device)]
    if not gpu and environment.get("threads"):
        parts.append(f"{environment['threads']} threads")
    if ranks > 1:
        parts.append(f"{ranks} ranks")
    return ", ".join(parts)


def _cost(report: Report) -> str:
    parts = []
    if report.epochs:
        passes = ""
        if report.forward is not None and report.backward is not None:
            passes = f" ({count(report.forward)} forward, {count(report.backward)} backward passes)"
        parts.append(f"training {duration(report.seconds)}{passes}")
    # Checkpoints of the same weights share one evaluation.
    attacks = {(each.evaluation, each.label): each.seconds for each in report.results}
    if attacks:
        parts.append(f"attacks {duration(sum(attacks.values()))}")
    return "; ".join(parts)
