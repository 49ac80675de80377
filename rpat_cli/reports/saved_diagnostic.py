"""A diagnostic of a run, as an evaluation's file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rpat_cli.diagnostics import Result


@dataclass(frozen=True)
class SavedDiagnostic:
    """The checkpoint that was examined ("best (epoch 3)"), the file in `evals/`, what the file
    holds, and the result that was read from it."""

    checkpoint: str
    evaluation: str
    content: Mapping[str, Any]
    result: Result

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "checkpoint": self.checkpoint,
            "evaluation": self.evaluation,
            "result": dict(self.content),
        }
