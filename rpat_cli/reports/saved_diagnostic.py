"""A diagnostic of a run, as an evaluation's file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics import Result


@dataclass(frozen=True)
class SavedDiagnostic:
    """The checkpoint that was examined ("best (epoch 3)"), the file in `evals/`, what the file
    holds, and the result that was read from it; the threat, and of `only` how many test images it
    is, if not of all."""

    checkpoint: str
    evaluation: str
    content: Mapping[str, Any]
    result: Result
    threat: Threat
    only: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "checkpoint": self.checkpoint,
            "evaluation": self.evaluation,
            "result": dict(self.content),
        }
