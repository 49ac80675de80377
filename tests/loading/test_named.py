"""The words for runs: `last` is the newest, `best` the one that validated best on the same task."""

import json
import shutil
from pathlib import Path

import pytest

from rpat_cli.errors import RunFolderError
from rpat_cli.loading.load import load_model
from rpat_cli.loading.named import run_or_path

RUN = Path(__file__).parents[1] / "compat" / "data" / "run"


def make(name: str, hour: int, robust: float, eps: float = 0.1) -> None:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(f"2026-01-01 {hour:02}:00:00 began\n")
    (folder / "recipe.yaml").write_text(
        f"data: {{name: fashion-mini}}\nthreat: {{norm: Linf, eps: {eps}}}\n"
    )
    record = {
        "epoch": 1,
        "lr": 0.1,
        "train": {"loss": 1.0, "robust_acc": 0.1},
        "seconds": 1.0,
        "images_per_second": 1.0,
        "validation": {"robust_acc": robust, "clean_acc": 0.9},
    }
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")


def test_last_and_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("last", "best"):
        with pytest.raises(RunFolderError, match="there is no run"):
            run_or_path(word)
    make("easier", 1, robust=0.9, eps=0.01)  # another task: not compared
    make("good", 2, robust=0.6)
    make("newest", 3, robust=0.5)
    assert run_or_path("last") == Path("runs/newest")
    assert run_or_path("best") == Path("runs/good")
    assert run_or_path("good") == Path("runs/good")
    assert run_or_path("runs/newest") == Path("runs/newest")
    make("best", 0, robust=0.1)  # a run of that name
    assert run_or_path("best") == Path("runs/best")
    Path("best").mkdir()  # what there is comes first
    assert run_or_path("best") == Path("best")


def test_a_model_is_loaded_by_any_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RUN, "runs/mine")
    files = {load_model(name).file for name in ("last", "best", "mine", "runs/mine")}
    assert files == {Path("runs/mine/checkpoints/best.pt")}
