"""What an evaluation says of itself, as cases that a CI system can show: the one table that its
SARIF and its JUnit files are made from."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rpat_cli.diagnostics import Result
from rpat_cli.diagnostics.blocks import Level
from rpat_cli.diagnostics.verdict.checks import CHECKS
from rpat_cli.diagnostics.verdict.verdict import Verdict
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.records import eval_file

Evaluated = Sequence[tuple[Evaluation, Path]]
"""An evaluation for each threat, and its file."""

TO_ACT_ON = "WARN: "
"""How a remark begins that warns; the others tell how the model was loaded."""

NO_VERDICT = (
    "no verdict: whether the attacks were fooled (gradient masking) was not checked. Add --check."
)


@dataclass(frozen=True)
class Rule:
    """What a case is about. `group` and `name` identify it, and stay the same over all runs."""

    group: str
    name: str
    help: str

    @property
    def id(self) -> str:
        """Without spaces, such as `verdict/eval-mode`."""
        return f"{self.group}/{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}"


@dataclass(frozen=True)
class Case:
    """How it stands with a rule, and why. `subject`: with which attack, where it is one's."""

    rule: Rule
    level: Level
    message: str
    subject: str = ""


@dataclass(frozen=True)
class Told:
    """`model`: the URI of what was evaluated. `figures` as `figures_of` returns them. `files`: the
    URIs of the evaluations, one for each threat."""

    model: str
    cases: Sequence[Case]
    figures: Mapping[str, float | int]
    files: Sequence[str]


ACT = "What to do: the table of checks in docs/diagnostics.md."
CHECK_RULES = {
    check.name: Rule("verdict", check.name, f"Source: {check.paper}. {ACT}") for check in CHECKS
}
WARNING = Rule(
    "evaluation", "no warning from an attack", "What an attack found odd in the model it attacked."
)
PLAUSIBLE = Rule(
    "evaluation",
    "plausible clean accuracy",
    "A clean accuracy near chance, or far from the recorded one, hints at other images, "
    "another normalization or another order of classes than the model was trained with.",
)
WITH_VERDICT = Rule(
    "evaluation",
    "verdict measured",
    "rpat eval --check looks for signs that the attacks were fooled.",
)
RULES = (*CHECK_RULES.values(), WARNING, PLAUSIBLE, WITH_VERDICT)


def cases_of(evaluated: Evaluated, diagnostics: Mapping[str, Result]) -> list[Case]:
    """Every check of the verdict, then what is to be acted on besides: all of level WARN or FAIL.

    Without a verdict one case says that it is missing.
    """
    cases: list[Case] = []
    for name, result in diagnostics.items():
        if isinstance(result, Verdict):
            for check in result.checks:
                rule = CHECK_RULES[check.name]
                cases.append(Case(rule, check.level, check.reason))
        elif result.failed:
            title = result.section().title
            rule = Rule("diagnostic", name, f"The diagnostic {name!r}: {title}")
            cases.append(Case(rule, "FAIL", f"{title} The diagnostic {name!r} failed."))
    if not has_verdict(diagnostics):
        cases.append(Case(WITH_VERDICT, "WARN", NO_VERDICT))
    return [*cases, *_doubts(evaluated)]


def has_verdict(diagnostics: Mapping[str, Result]) -> bool:
    return any(isinstance(result, Verdict) for result in diagnostics.values())


def _doubts(evaluated: Evaluated) -> Iterator[Case]:
    """Warnings, by the attack; notes only explain, and are left out."""
    for evaluation, file in evaluated:
        under = f" ({spelled(evaluation)})" if len(evaluated) > 1 else ""
        for text in eval_file.read(file).remarks:
            if text.startswith(TO_ACT_ON):
                yield Case(PLAUSIBLE, "WARN", text.removeprefix(TO_ACT_ON), under.strip())
        for result in evaluation.results:
            subject = f"{result.label}{under}"
            for text in result.flags:
                yield Case(WARNING, "WARN", f"{subject}: {text}", subject)


def figures_of(evaluated: Evaluated) -> dict[str, float | int]:
    """The accuracies, as fractions, by name: `clean_acc`, `robust_acc` in the worst case, and
    `robust_acc:ATTACK`; `n` images.

    Under several threats `@NORM:EPS` follows, and `robust_acc` is that of the union.
    """
    first = evaluated[0][0]
    figures: dict[str, float | int] = {"n": first.n, "clean_acc": first.clean.value}
    several = len(evaluated) > 1
    if several:
        union = ThreatUnion.of([evaluation for evaluation, _ in evaluated])
        figures["robust_acc"] = union.accuracy.value
    for evaluation, _ in evaluated:
        under = f"@{spelled(evaluation)}" if several else ""
        if evaluation.attacks:
            figures[f"robust_acc{under}"] = evaluation.robust.value
        for result in evaluation.attacks:
            figures[f"robust_acc:{result.label}{under}"] = result.robust_acc
    return figures


def spelled(evaluation: Evaluation) -> str:
    """The threat, such as `Linf:0.03137`."""
    return f"{evaluation.threat.norm}:{evaluation.threat.eps:.4g}"
