"""Where models and runs lie: in folders whose names are no text, and in folders that cannot be
written to."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rpat_cli as rpat
from rpat_cli.models import MODELS
from rpat_cli.models.base import build_model
from rpat_cli.recipe import plugins
from rpat_cli.runs.resume import resume_run

SMALL: dict[str, Any] = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "flat-there",
    "method": "standard",
    "epochs": 1,
    "eval": ["clean"],
    "validation": {"steps": 1, "limit": 20},
    "wa": True,
}
PROGRAM = """
from torch import nn
from rpat_cli.models import MODELS

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

MODELS.add("flat-there", lambda channels, image_size, classes: build())
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a name in Latin-1."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    monkeypatch.setattr(plugins, "_loaded", {})
    (folder / "own.py").write_text(PROGRAM)
    return folder


def test_a_run_and_its_plugin(there: Path) -> None:
    run = rpat.train(out=there / "run", plugins=[str(there / "own.py")], **SMALL)
    _, file = rpat.evaluate(there / "run", "clean,fgsm", limit=20, trust=True)
    assert file.parent == run.evals
    source = f"transfer:{there}/run/checkpoints/last.pt@fgsm"
    rpat.evaluate(there / "run", source, limit=20, trust=True)
    resume_run(there / "run", changes=[])
    assert "cannot be read" not in run.report.read_text()


def test_checkpoints_of_others_and_model_files(there: Path) -> None:
    model = build_model("small-cnn", shape=(1, 28, 28), classes=10, mean=(0.5,), std=(0.5,))
    content = {"state_dict": model.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, there / "x.pt")
    for name in (there / "x.pt", f"{there}/x.pt:state_dict", f"{there}/own.py:build"):
        evaluation, _ = rpat.evaluate(name, "clean", limit=20, data="fashion-mini")
        assert evaluation.n == 20


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run in a folder that cannot be written to, as on a shared disk."""
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("root may write into every folder")
    monkeypatch.chdir(tmp_path)
    keys = {**SMALL, "model": "small-cnn", "wa": False}
    run = rpat.train(out=tmp_path / "shared" / "run", **keys).path
    folders = [tmp_path / "shared", run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield run
    for folder in folders:
        folder.chmod(0o755)


def test_the_results_of_a_run_that_cannot_be_written_to(read_only: Path, tmp_path: Path) -> None:
    evaluation, file = rpat.evaluate(read_only, "clean", limit=20)
    assert evaluation.n == 20
    assert file.is_relative_to(Path("runs/external"))
    assert "cannot be written to: the results go to runs/external/" in file.read_text()
    alone = read_only / "checkpoints" / "last.pt"
    _, file = rpat.evaluate(alone, "clean", limit=20)
    assert file.is_relative_to(Path("runs/external"))
    assert not list(read_only.rglob("*.tmp"))
