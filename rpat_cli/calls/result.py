"""What an evaluation returns to Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.calls.html import as_html
from rpat_cli.diagnostics import Result
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.records import eval_file
from rpat_cli.runs.evaluate import Measured
from rpat_cli.runs.run_log import as_text
from rpat_cli.runs.shown import shown


@dataclass(frozen=True)
class EvalResult:
    """The accuracies of a model under attack; printed, and shown by a notebook, as the table of
    `rpat eval`.

    Accuracies are fractions, intervals are at 95 %. `evaluation` has everything, image by image;
    `file` is the JSON file that holds it. `diagnostics` are the results of those asked for, by
    name. With several threats, `others` has the results under the second and so on, and `union`
    the images that are right under all.
    """

    evaluation: Evaluation
    file: Path
    diagnostics: Mapping[str, Result] = field(repr=False)
    others: "tuple[EvalResult, ...]" = ()
    measured: Measured | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, measured: Measured) -> "EvalResult":
        others = tuple(cls(each, file, {}) for each, file in measured.others)
        return cls(measured.evaluation, measured.file, measured.diagnostics, others, measured)

    @property
    def clean_acc(self) -> float:
        return self.evaluation.clean.value

    @property
    def robust_acc(self) -> float:
        """In the worst case over all attacks."""
        return self.evaluation.robust.value

    @property
    def interval(self) -> tuple[float, float]:
        """Of `robust_acc`."""
        return self.evaluation.robust.interval

    @property
    def accuracies(self) -> dict[str, float]:
        """By the label of each attack, such as "pgd-20"; that on clean images first."""
        attacks = {each.label: each.robust_acc for each in self.evaluation.attacks}
        return {"clean": self.clean_acc, **attacks}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(eval_file.read(self.file).class_names)

    @property
    def union(self) -> ThreatUnion | None:
        return None if self.measured is None else self.measured.union

    @property
    def failed(self) -> bool:
        """Whether a diagnostic says that the accuracies cannot be trusted; `rpat eval` exits with
        code 3 then."""
        return any(result.failed for result in self.diagnostics.values())

    def __getitem__(self, label: str) -> AttackResult:
        """What one attack did, by its label. Raises `KeyError`, with the labels there are."""
        return self.evaluation[label]

    def to_dict(self) -> dict[str, Any]:
        """The record in `file`: plain builtins, ready for JSON."""
        return dict(eval_file.read(self.file).record)

    def __repr__(self) -> str:
        listed = ", ".join(f"{label} {100 * acc:.2f} %" for label, acc in self.accuracies.items())
        return f"<EvalResult {listed}; {self.file}>"

    def __str__(self) -> str:
        return as_text(*shown(self._measured()))

    def _repr_html_(self) -> str:
        return as_html(shown(self._measured()))

    def _measured(self) -> Measured:
        return self.measured or Measured(self.evaluation, self.file, self.diagnostics)
