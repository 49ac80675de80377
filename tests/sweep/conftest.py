"""Sweeps of fake trials: everything is real but the training."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rpat_cli.sweep.engines.local import Local, local_slots
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.folder import TrialFolder
from rpat_cli.sweep.runner import Runner

FAKE = Path(__file__).parent / "fake_trial.py"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a sweep file and return its path."""

    def write_file(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def runner(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runner]:
    """A runner for the text of a sweep file, on two slots, whose trials are fake."""
    monkeypatch.setattr(
        TrialFolder, "command", lambda self: (sys.executable, str(FAKE), str(self.recipe), str(self.run.path))
    )

    def make(text: str, folder: str = "out", **options: object) -> Runner:
        return Runner(plan_sweep(write(text)), tmp_path / folder, Local(local_slots(2, [], 2)), **options)

    return make
