"""What stands at the top of a run's page: whether to trust it, what is worst, when, where, how
long."""

from collections.abc import Mapping, Sequence
from typing import Any

from rpat_cli.diagnostics.blocks import Text
from rpat_cli.reports.report import Report, ReportRow, total
from rpat_cli.reports.saved_diagnostic import SavedDiagnostic
from rpat_cli.reports.words import show_threat
from rpat_cli.text import count, counted, duration


def verdicts(report: Report, head: ReportRow | None) -> list[tuple[Text, str]]:
    """The conclusions of all diagnostics that give one of PASS, WARN and FAIL; with each what it is
    about, where that is not what the accuracies below it are about."""
    found = []
    for saved in report.diagnostics.values():
        blocks = saved.result.section().blocks
        about = _about(saved, head)
        found += [(block, about) for block in blocks if isinstance(block, Text) and block.level]
    return found


def _about(saved: SavedDiagnostic, head: ReportRow | None) -> str:
    parts = []
    if head is None or (saved.checkpoint, saved.threat) != (head.checkpoint.title, head.threat):
        parts += [saved.checkpoint, show_threat(saved.threat)]
    if saved.only is not None:
        parts.append(f"{saved.only} images")
    return ", ".join(parts)


def facts(report: Report) -> dict[str, str]:
    """Date, hardware and cost in words, by their headings; what is not known is left out."""
    evaluated = max((result.created for result in report.results), default="")
    found = {
        "trained": day(report.trained_in.get("time")) if report.epochs_done else "",
        "evaluated": day(evaluated),
        "hardware": hardware(report.trained_in),
        "cost": _cost(report),
    }
    return {heading: text for heading, text in found.items() if text}


def day(time: Any) -> str:
    """`2026-11-27 05:42` of an ISO 8601 time."""
    return time[:16].replace("T", " ") if isinstance(time, str) else ""


def hardware(environment: Mapping[str, Any]) -> str:
    """`NVIDIA H100, 8 ranks, bf16` or `AMD EPYC, 2 threads`: of the training, if it is known."""
    gpu, cpu, threads, ranks = map(environment.get, ("gpu", "cpu", "threads", "ranks"))
    # A file may come from anyone: what has another type than is written here is left out.
    on_gpu = isinstance(gpu, str) and gpu != ""
    device = gpu if on_gpu else cpu
    if not isinstance(device, str) or not device:
        return ""
    parts = [device]
    if not on_gpu and isinstance(threads, int) and threads:
        parts.append(counted(threads, "thread"))
    if isinstance(ranks, int) and ranks > 1:
        parts.append(f"{ranks} ranks")
    if (precision := environment.get("precision")) in ("tf32", "bf16", "fp16"):
        parts.append(precision)
    return ", ".join(parts)


def cost_of_training(epochs: Sequence[Mapping[str, Any]]) -> str:
    """`training 3 h 05 min (1,234 forward, 1,100 backward passes)`, of its records."""
    forward, backward = total(epochs, "forward"), total(epochs, "backward")
    passes = ""
    if forward is not None and backward is not None:
        passes = f" ({count(forward)} forward, {count(backward)} backward passes)"
    return f"training {duration(sum(record['seconds'] for record in epochs))}{passes}"


def _cost(report: Report) -> str:
    parts = []
    if report.epochs:
        parts.append(cost_of_training(report.epochs))
    # Checkpoints of the same weights share one evaluation.
    attacks = {
        (each.evaluation, each.label): each.seconds
        for each in report.results
        if each.label != "clean"
    }
    if attacks:
        parts.append(f"attacks {duration(sum(attacks.values()))}")
    return "; ".join(parts)
