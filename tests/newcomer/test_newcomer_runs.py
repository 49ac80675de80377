"""List, show, resume, delete and compare runs, and read what a tracker kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import ROOT, rpat
from mcnemar_by_hand import compared

OLDER = ROOT / "tests" / "compat" / "data" / "run"


@pytest.fixture
def with_a_run(tmp_path: Path) -> Path:
    """A folder with a finished run, `runs/first`, that an earlier version has made."""
    shutil.copytree(OLDER, tmp_path / "runs" / "first")
    return tmp_path


def test_list_and_show(with_a_run: Path) -> None:
    (listed,) = json.loads(rpat(with_a_run, "runs", "--json"))
    shown = json.loads(rpat(with_a_run, "runs", "show", "last", "--json"))
    report = json.loads((OLDER / "report.json").read_text())["results"]
    acc = {(each["checkpoint"], each["label"]): each["acc"] for each in report}
    assert listed["clean_acc"] == shown["clean_acc"] == acc["best", "clean"]
    assert "first" in rpat(with_a_run, "runs")


def test_delete(with_a_run: Path) -> None:
    run = with_a_run / "runs" / "first"
    rpat(with_a_run, "runs", "rm", "first", "--whole", code=2)  # nobody can be asked here
    assert run.is_dir()
    rpat(with_a_run, "runs", "rm", "first", "--yes")
    assert {each.stem for each in (run / "checkpoints").glob("*.pt")} == {"best", "best_wa"}
    rpat(with_a_run, "runs", "rm", "first", "--whole", "--yes")
    assert not run.exists()


@pytest.mark.slow
def test_resume(tmp_path: Path) -> None:
    """Stopped and continued, it ends with the weights of a training at one go."""
    common = ("train", "--epochs", "2", "--steps", "1", "--val-size", "100", "--eval", "clean")
    rpat(tmp_path, *common, "--out", "runs/whole")
    rpat(tmp_path, *common, "--out", "runs/parts", "--stop-after", "1")
    assert "stopped" in rpat(tmp_path, "runs", "--filter", "name=parts")
    rpat(tmp_path, "train", "--resume", "parts")
    whole, parts = (last_weights(tmp_path / "runs" / name) for name in ("whole", "parts"))
    assert all(parts[name].equal(tensor) for name, tensor in whole.items())


def last_weights(run: Path) -> dict[str, Any]:
    weights: dict[str, Any] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)[
        "model"
    ]
    return weights


@pytest.mark.slow
def test_tensorboard(home: Path) -> None:
    """TensorBoard's own reader finds the numbers of metrics.jsonl and of the report."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = home / "runs" / "pgd"
    board = events.EventAccumulator(str(run / "tracking" / "tensorboard"))
    board.Reload()
    (epoch,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    (point,) = board.Scalars("validation/robust_acc")
    assert (point.step, point.value) == (1, pytest.approx(epoch["validation"]["robust_acc"]))
    report = json.loads((run / "report.json").read_text())["results"]
    acc = {(each["checkpoint"], each["label"]): each["acc"] for each in report}
    (tested,) = board.Scalars("test/best/pgd-2")
    assert tested.value == pytest.approx(acc["best", "pgd-2"])


@pytest.mark.slow
def test_compare(home: Path, tmp_path: Path) -> None:
    """The figures of a script that knows the files only, and evaluations that must not count."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    rpat(tmp_path, "eval", "pgd", "--attack", "pgd-2,fgsm", "--seed", "1")  # newer: this counts
    rpat(tmp_path, "eval", "rpat", "--attack", "fgsm,mim-2")
    rpat(tmp_path, "eval", "pgd", "--attack", "pgd-2", "--checkpoint", "last_wa")
    rpat(tmp_path, "eval", "rpat", "--attack", "fgsm", "--limit", "50")
    said = json.loads(rpat(tmp_path, "compare", "pgd", "rpat", "--json"))
    by_hand = compared(tmp_path / "runs" / "pgd", tmp_path / "runs" / "rpat")
    found = {each["label"]: each for each in said["comparisons"]}
    assert found.keys() == by_hand.keys() == {"clean", "pgd-2", "fgsm", "worst case"}
    for label, expected in by_hand.items():
        numbers = {key: found[label][key] for key in expected}
        assert numbers == {**expected, "p": pytest.approx(expected["p"], rel=1e-12)}
    assert any("mim-2" in remark for remark in said["remarks"])
    assert [len(said["files"][side]) for side in "ab"] == [1, 2]
