"""Is this robust accuracy real, or are the attacks being fooled?

`gather` attacks some images in many cheap ways and keeps what happened as `Evidence`; each check
looks at it and gives one `CheckResult`; the worst of them is the verdict.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rpat_cli.diagnostics.base import Result, Subject
from rpat_cli.diagnostics.blocks import Cells, Level, Section, Table, Text, columns
from rpat_cli.diagnostics.verdict.checks import CHECKS, CheckResult
from rpat_cli.diagnostics.verdict.evidence import Evidence
from rpat_cli.diagnostics.verdict.image_by_image import LEVELS
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.diagnostics.verdict.strongest import strongest, words
from rpat_cli.text import percent

MEANING: Mapping[Level, str] = {
    "PASS": "No sign that the attacks were fooled.",
    "WARN": "Some signs that the attacks may have been fooled: read why below.",
    "FAIL": "The attacks were fooled, or nothing can be concluded from them: do not rely on these "
    "robust accuracies.",
}


@dataclass(frozen=True)
class Verdict(Result):
    """The results of all checks on `n` images, and the numbers behind them (`Evidence.to_dict`).

    `attack`: what to give to `rpat eval` in order to see the strongest of the attacks that were
    tried; "" in files of versions that did not name it. `attack_acc`: what it left here.
    """

    checks: tuple[CheckResult, ...]
    n: int
    evidence: Mapping[str, Any]
    attack: str = ""
    attack_acc: float | None = None

    @property
    def level(self) -> Level:
        """The worst of all checks."""
        return max((check.level for check in self.checks), key=LEVELS.index)

    @property
    def failed(self) -> bool:
        return self.level == "FAIL"

    def __getitem__(self, name: str) -> CheckResult:
        """The result of one check. Raises `KeyError`."""
        return {check.name: check for check in self.checks}[name]

    def to_dict(self) -> dict[str, Any]:
        named = {"attack": self.attack, "attack_acc": self.attack_acc} if self.attack else {}
        return {
            "level": self.level,
            "findings": [asdict(check) for check in self.checks],
            **named,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Verdict":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        checks = tuple(CheckResult(**check) for check in values["findings"])
        evidence = values["evidence"]
        known = values.get("attack", ""), values.get("attack_acc")
        verdict = cls(checks, evidence["n"], evidence, *known)
        if verdict.level != values["level"]:
            raise ValueError(f"the level is {values['level']}, that of the checks {verdict.level}")
        return verdict

    def section(self) -> Section:
        """The worst checks first."""
        worst_first = sorted(self.checks, key=lambda check: -LEVELS.index(check.level))
        rows = [
            Cells(
                ("", check.name, check.reason),
                strong=check.level != "PASS",
                level=check.level,
                note=check.paper,
            )
            for check in worst_first
        ]
        table = Table(columns(["", "check", "result"], []), tuple(rows))
        text = MEANING[self.level]
        if self.attack and self.level != "PASS":
            left = percent(self.attack_acc or 0.0)
            text += f" The strongest here, rpat eval {self.attack}, leaves {left} %."
        blocks = (Text((text,), level=self.level), table)
        return Section("Can this robustness be trusted?", self.n, blocks)


def judge(evidence: Evidence) -> Verdict:
    """Run every check; if the model gets no image right, only those of the model itself."""
    correct = evidence.correct
    chosen = [check for check in CHECKS if correct.correct or not check.needs_correct]
    results = tuple(check(evidence) for check in chosen)
    best = strongest(evidence)
    if not best:
        return Verdict(results, correct.n, evidence.to_dict())
    left = evidence.robust(best).value
    return Verdict(results, correct.n, evidence.to_dict(), words(evidence, best), left)


def measure(s: Subject) -> Verdict:
    """The diagnostic: images made on `s.sources` are tried too."""
    return judge(
        gather(s.model, s.images, s.y, s.threat, device=s.device, seed=s.seed, sources=s.sources)
    )
