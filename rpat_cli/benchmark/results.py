"""All that a benchmark measured, on which machine, and the file that keeps it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpat_cli.benchmark.evaluation import EvaluationTimes
from rpat_cli.benchmark.training import TrainingTimes
from rpat_cli.hardware import cpu_flags, native_bf16
from rpat_cli.records.files import write_new
from rpat_cli.runs.environment import environment

FORMAT = 1

MATRIX_UNITS = ("amx_bf16", "amx_tile", "avx512_bf16", "avx512f", "avx2")
"""The instruction sets that a figure depends on, as Linux names them."""


@dataclass(frozen=True)
class Benchmark:
    """`recipe` and `target` say of what; `machine` on what. Either part may be missing."""

    machine: Mapping[str, Any]
    recipe: Mapping[str, Any] | None = None
    training: TrainingTimes | None = None
    target: str | None = None
    evaluation: EvaluationTimes | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "format": FORMAT,
            "machine": dict(self.machine),
            "recipe": self.recipe,
            "training": self.training.to_dict() if self.training else None,
            "target": self.target,
            "evaluation": self.evaluation.to_dict() if self.evaluation else None,
        }


def machine() -> dict[str, Any]:
    """What figures depend on besides the recipe: versions, processor, threads, and what else was
    running."""
    return {
        **environment(),
        "cores": os.cpu_count(),
        "instructions": [name for name in MATRIX_UNITS if name in cpu_flags()],
        "native_bf16": native_bf16("cpu"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def record_file(name: Path) -> Path:
    """NAME.json."""
    return name if name.suffix == ".json" or not name.name else Path(f"{name}.json")


def record(benchmark: Benchmark, name: Path) -> Path:
    """Write it to NAME.json, or to NAME-2.json if that is taken; returns where it is.

    Raises `RunFolderError` if it cannot be written.
    """
    return write_new(record_file(name), json.dumps(benchmark.to_dict(), indent=1) + "\n")
