"""The closer looks that the evaluations of a run hold, read back from their files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.corruptions import Corruption, Corruptions
from rpat_cli.diagnostics.eps_curve import EpsCurve
from rpat_cli.diagnostics.loss_surface import LossSurface
from rpat_cli.diagnostics.perception import Perception
from rpat_cli.diagnostics.verdict.verdict import LEVELS, Finding


@dataclass(frozen=True)
class Judgement:
    """A verdict without the evidence behind it."""

    threat: Threat
    n: int
    level: str
    findings: tuple[Finding, ...]

    @property
    def worst_first(self) -> list[Finding]:
        return sorted(self.findings, key=lambda finding: -LEVELS.index(finding.level))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Judgement":
        evidence = values["evidence"]
        findings = tuple(Finding(**finding) for finding in values["findings"])
        return cls(Threat(**evidence["threat"]), evidence["n"], values["level"], findings)


def _corruptions(values: Mapping[str, Any]) -> Corruptions:
    each = [Corruption(c["name"], tuple(c["errors"]), c["ce"]) for c in values["corruptions"]]
    return Corruptions(
        values["folder"], values["n"], values["labels"], tuple(each), values["baseline"]
    )


READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "verdict": Judgement.from_dict,
    "perception": Perception.from_dict,
    "eps_curve": EpsCurve.from_dict,
    "eps_curve_fmn": EpsCurve.from_dict,
    "loss_surface": LossSurface.from_dict,
    "corruptions": _corruptions,
}
"""Key in an evaluation's JSON -> how what it holds is read."""


@dataclass(frozen=True)
class Look:
    """One closer look: at which checkpoint, in which file of `evals/`, what stands there and what
    it says."""

    checkpoint: str
    evaluation: str
    content: Mapping[str, Any]
    result: Any

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "checkpoint": self.checkpoint,
            "evaluation": self.evaluation,
            "result": dict(self.content),
        }
