"""A diagnostic from a user's own file, added with `DIAGNOSTICS.add` alone, does all that ours
do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.errors import ConfigError
from rpat_cli.recipe.plugins import load_plugins

PLUGIN = '''
"""How confident the model is, with and without noise."""

from dataclasses import asdict, dataclass

import torch

from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic, Result
from rpat_cli.diagnostics.blocks import Cells, Line, LineChart, Pictures, Section, Table, columns


@dataclass(frozen=True)
class Confidence(Result):
    n: int
    by_noise: dict

    @property
    def failed(self):
        return min(self.by_noise.values()) < LEAST

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        return cls(values["n"], dict(values["by_noise"]))

    def section(self):
        rows = [Cells((noise, f"{value:.3f}")) for noise, value in self.by_noise.items()]
        table = Table(columns([], ["noise", "mean confidence"]), tuple(rows), "Of <all> images.")
        points = tuple((float(noise), value) for noise, value in self.by_noise.items())
        chart = LineChart("Confidence in per cent", "noise", (Line("mean", points),), True)
        return Section("How confident?", self.n, (Pictures((chart,), table),), "softmax")


@torch.no_grad()
def measure(subject):
    subject = subject.with_at_most(50)
    found = {}
    for noise in (0.0, 0.25, 0.5):
        x = (subject.x + noise * torch.randn_like(subject.x)).clamp(0, 1).to(subject.device)
        found[str(noise)] = float(subject.model(x).softmax(dim=1).amax(dim=1).mean())
    return Confidence(len(subject.x), found)


LEAST = 0.0
DIAGNOSTICS.add("confidence", Diagnostic(
    measure=measure, read=Confidence.from_dict, help="Mean confidence as noise grows."))
'''

TRAIN = ("--epochs", "1", "--steps", "1", "--eval", "clean", "--set", "validation.steps=1")


def rpat(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The real command."""
    return subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_is_measured_saved_listed_and_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    trained = rpat(tmp_path, "train", "--out", "run", "--set", "validation.limit=20", *TRAIN)
    assert trained.returncode == 0, trained.stderr
    listed = rpat(tmp_path, "eval", "--plugin", "mine.py", "--diagnostic", "list")
    assert "Mean confidence as noise grows." in listed.stdout
    assert "perception" in listed.stdout

    command = ("eval", "run", "--attack", "clean", "--limit", "60", "--plugin", "mine.py")
    done = rpat(tmp_path, *command, "--diagnostic", "confidence")
    assert done.returncode == 0, done.stderr
    assert "How confident? (softmax, 50 images)" in done.stdout
    assert "mean confidence" in done.stdout
    assert "Of <all> images." in done.stdout
    saved = json.loads((tmp_path / "run" / "report.json").read_text())["closer_looks"]["confidence"]
    file = tmp_path / "run" / "evals" / saved["evaluation"]
    assert json.loads(file.read_text())["confidence"] == saved["result"]
    assert saved["result"]["n"] == 50
    page = (tmp_path / "run" / "report.html").read_text()
    assert "How confident?" in page
    assert 'id="chart-confidence-1-1"' in page

    # Its flag for distrust works, too; and a report that is written without the plugin goes on.
    (tmp_path / "mine.py").write_text(PLUGIN.replace("LEAST = 0.0", "LEAST = 2.0"))
    failed = rpat(tmp_path, *command, "--diagnostic", "confidence", "--json-full")
    assert failed.returncode == 3, failed.stderr
    assert json.loads(failed.stdout)["confidence"]["n"] == 50
    without = rpat(tmp_path, "eval", "run", "--attack", "clean", "--diagnostic", "confidence")
    assert without.returncode == 2
    assert "'confidence'" in without.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('DIAGNOSTICS.add("mine", print)', "must be a rpat_cli.diagnostics.Diagnostic"),
        (
            'DIAGNOSTICS.add("results", Diagnostic(measure=print, read=dict, help=""))',
            "has the name of a key of the evaluation's JSON",
        ),
        ('DIAGNOSTICS.add("verdict", Diagnostic(measure=print, read=dict, help=""))', "already"),
    ],
)
def test_what_would_fail_later_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(DIAGNOSTICS, "_entries", dict(DIAGNOSTICS._entries))
    file = tmp_path / "mine.py"
    file.write_text(f"from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_plugins([(str(file), "--plugin")])
