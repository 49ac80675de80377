"""How the union of several threats is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.reports.words import show_threat
from rpat_cli.text import percent, percent_range


@dataclass(frozen=True)
class CheckpointUnion:
    """The union of threats for one checkpoint."""

    checkpoint: str
    union: ThreatUnion

    def to_dict(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint, **self.union.to_dict()}

    @property
    def line(self) -> str:
        """In one line, for captions."""
        accuracy = self.union.accuracy
        return (
            f"{self.checkpoint}, right under all of {listed(self.union.threats)}: "
            f"{percent(accuracy.value)} ({percent_range(accuracy.interval)})"
        )


def listed(threats: Sequence[Threat]) -> str:
    """`Linf 8/255, L2 0.5`, each as `show_threat` writes it."""
    return "; ".join(map(show_threat, threats))


def union_table(union: ThreatUnion) -> Table:
    """Per threat and under all of them: accuracy in percent, and its interval."""
    title = "Accuracy in percent under several threats"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("threat")
    for name in ("accuracy", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [("clean", union.clean)]
    rows += [
        (show_threat(threat), part) for threat, part in zip(union.threats, union.parts, strict=True)
    ]
    for name, accuracy in rows:
        table.add_row(name, percent(accuracy.value), percent_range(accuracy.interval))
    table.add_section()
    whole = union.accuracy
    table.add_row("union", percent(whole.value), percent_range(whole.interval), style="bold")
    return table
