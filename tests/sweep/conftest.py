"""Sweeps of fake trials: everything is real but the training."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rpat_cli.sweep.engines.base import Engine
from rpat_cli.sweep.engines.local import Local, local_slots
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.folder import TrialFolder
from rpat_cli.sweep.runner import SweepRunner

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
def runner(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SweepRunner]:
    """A runner for the text of a sweep file, whose trials are fake; on two slots, or another
    engine."""

    def command(folder: TrialFolder) -> tuple[str, ...]:
        until = [str(folder.until)] if folder.until is not None else []
        return (sys.executable, str(FAKE), str(folder.recipe), str(folder.run.path), *until)

    monkeypatch.setattr(TrialFolder, "command", command)

    def make(
        text: str, folder: str = "out", engine: Engine | None = None, **options: object
    ) -> SweepRunner:
        engine = engine or Local(local_slots(2, [], 2))
        return SweepRunner(plan_sweep(write(text)), tmp_path / folder, engine, **options)

    return make
