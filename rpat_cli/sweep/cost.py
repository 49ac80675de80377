"""When a sweep ran, on what, and what it cost: from the files of its runs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rpat_cli.errors import RunFolderError
from rpat_cli.records.metrics import is_count, is_number, read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.overview import day, hardware
from rpat_cli.reports.saved_report import DAMAGE, read_saved_report
from rpat_cli.text import DASH, counted, duration

MOST_SECONDS = 1e12
"""More is damage, not a cost: a file may hold any number, and their sum has to stay one."""

MOST_RANKS = 10**6


@dataclass(frozen=True)
class TrialCost:
    """Seconds of the training and of the attacks, and those of all devices that shared them.
    `began`, `ended` (ISO 8601) and `hardware` are "" while there is no report."""

    training: float = 0.0
    attacks: float = 0.0
    device_seconds: float = 0.0
    began: str = ""
    ended: str = ""
    hardware: str = ""


@dataclass(frozen=True)
class SweepCost:
    """The sums over all trials that have begun; `hardware` counts the trials on each."""

    trials: int
    training_seconds: float
    attack_seconds: float
    device_seconds: float
    began: str
    ended: str
    hardware: Mapping[str, int]

    @property
    def facts(self) -> dict[str, str]:
        """In words, by their headings; what is not known is left out."""
        dates = [day(time) for time in (self.began, self.ended)]
        places = list(self.hardware)
        if len(places) > 1:
            places = [f"{name} ({counted(n, 'trial')})" for name, n in self.hardware.items()]
        together = self.training_seconds + self.attack_seconds
        found = {
            "date": f" {DASH} ".join(dict.fromkeys(filter(None, dates))),
            "hardware": "; ".join(places),
            "cost": (
                f"training {duration(self.training_seconds)}, attacks "
                f"{duration(self.attack_seconds)}, over {counted(self.trials, 'trial')}"
            )
            if together
            else "",
            "device time": _device_time(self.device_seconds) if self.device_seconds else "",
        }
        return {heading: text for heading, text in found.items() if text}


def _device_time(seconds: float) -> str:
    """In hours, as it is billed, from one hour on."""
    return duration(seconds) if seconds < 3600 else f"{seconds / 3600:,.1f} hours"


def cost_of(run: RunFolder) -> TrialCost:
    """What one run has cost so far. What cannot be read counts as nothing."""
    try:
        records = read_metrics(run.metrics)
    except RunFolderError:
        records = []
    training = sum(_seconds(record) for record in records)
    shared = sum(_seconds(record) * _ranks(record) for record in records)
    try:
        return _with_report(read_saved_report(run), training, shared)
    except DAMAGE:
        return TrialCost(training, device_seconds=shared)


def _seconds(record: Mapping[str, Any]) -> float:
    """0 for what no clock has measured."""
    seconds = record.get("seconds", 0.0)
    return float(seconds) if is_number(seconds) and 0 <= seconds <= MOST_SECONDS else 0.0


def _ranks(record: Mapping[str, Any]) -> int:
    """1 for what is no number of processes."""
    ranks = record.get("ranks", 1)
    return ranks if is_count(ranks) and 1 <= ranks <= MOST_RANKS else 1


def _with_report(report: Mapping[str, Any], training: float, shared: float) -> TrialCost:
    environment = report.get("environment", {})
    # Checkpoints of the same weights share one evaluation.
    attacks = {
        (each.get("evaluation"), each["label"]): _seconds(each)
        for each in report["results"]
        if each["label"] != "clean"
    }
    seconds = sum(attacks.values())
    ended = max((str(each.get("created", "")) for each in report["results"]), default="")
    began = environment.get("time", "")
    return TrialCost(
        training=training,
        attacks=seconds,
        device_seconds=shared + seconds * _ranks(environment),
        began=began if isinstance(began, str) else "",
        ended=ended,
        hardware=hardware(environment),
    )


def total_cost(costs: Iterable[TrialCost]) -> SweepCost | None:
    """None where no trial has begun."""
    begun = [cost for cost in costs if cost.training or cost.attacks]
    if not begun:
        return None
    return SweepCost(
        trials=len(begun),
        training_seconds=sum(cost.training for cost in begun),
        attack_seconds=sum(cost.attacks for cost in begun),
        device_seconds=sum(cost.device_seconds for cost in begun),
        began=min((cost.began for cost in begun if cost.began), default=""),
        ended=max(cost.ended for cost in begun),
        hardware=dict(Counter(cost.hardware for cost in begun if cost.hardware)),
    )
