"""The real command, in processes of its own, on the embedded images."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

QUICK = ("--epochs", "2", "--steps", "1", "--eval", "clean,pgd-2", "--set", "validation.steps=1")
"""A training of a few seconds."""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """stderr with its line breaks taken out, as text to search in."""
        return " ".join(self.err.split())


Rpat = Callable[..., Answer]


def environment(**extra: str) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "PYTHONWARNINGS": "ignore",
        **extra,
    }


def call(*arguments: str | Path, cwd: Path, timeout: float = 300) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)
