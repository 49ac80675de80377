"""A run with everything at once, from recipe to report: averaged weights, perturbed weights,
further images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rpat_cli import evaluate, load_model
from rpat_cli.errors import CheckpointError, DataError
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.run_folder import open_run
from rpat_cli.reports.gather import build_report
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import train_run


def recipe(folder: Path, **changes: Any) -> Recipe:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    np.savez(folder / "extra.npz", images=images, labels=random.randint(0, 10, 40))
    settings = {
        "method": "rebat",
        "ra": True,
        "wa": {"decay": 0.9},
        "awp": True,
        "attack": {"steps": 1, "strong": {"from_epoch": 1}},
        "data": {"extra": {"path": str(folder / "extra.npz"), "share": 0.2}, "val_size": 100},
        "epochs": 2,
        "batch_size": 200,
        "validation": {"steps": 1, "limit": 50},
        "eval": ["clean", "pgd-1"],
        "device": "cpu",
    }
    return resolve([Layer("test", settings | changes)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("averaged")
    return train_run(recipe(folder), out=folder / "run").path


def weights(path: Path, name: str) -> dict[str, Tensor]:
    return dict(load_checkpoint(path / "checkpoints" / f"{name}.pt")["model"])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_average_is_saved_evaluated_and_reported_next_to_the_model(run: Path) -> None:
    report = build_report(open_run(run))
    assert [c.name for c in report.checkpoints] == ["best", "last", "best_wa", "last_wa"]
    assert {(row.checkpoint.name, label) for row in report.rows for label in row.results} == {
        (name, label)
        for name in ("best", "last", "best_wa", "last_wa")
        for label in ("clean", "pgd-1")
    }
    assert not same(weights(run, "last"), weights(run, "last_wa"))
    assert "robust_acc_wa" in report.epochs[1]["validation"]
    assert "robust_acc_wa" not in report.epochs[0]["validation"]  # no average yet


@pytest.mark.parametrize("name", ["best_wa", "last_wa"])
def test_the_averaged_model_loads_and_evaluates_by_its_name(run: Path, name: str) -> None:
    saved = load_model(run, name)
    assert saved.epoch == 2
    assert same(dict(saved.model.state_dict()), weights(run, name))
    result, file = evaluate(run, "clean", checkpoint=name)
    assert file.name.startswith(name)
    reported = [
        f for f in build_report(open_run(run)).results if (f.checkpoint, f.label) == (name, "clean")
    ]
    assert [f.accuracy.value for f in reported] == [result.clean.value]


def test_a_stopped_run_goes_on_to_the_same_bits_of_model_and_average(
    run: Path, tmp_path: Path
) -> None:
    folder = train_run(recipe(tmp_path), out=tmp_path / "run", stop_after=1)
    torch.rand(10)
    resume_run(folder.path)
    for name in ("last", f"last{AVERAGED}"):
        assert same(weights(run, name), weights(folder.path, name))


def test_without_averaging_there_is_no_averaged_checkpoint(tmp_path: Path) -> None:
    plain = recipe(tmp_path, method="standard", ra=False, wa=None, awp=False, epochs=1)
    folder = train_run(plain, out=tmp_path / "run")
    assert sorted(p.name for p in (folder.path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]
    with pytest.raises(CheckpointError, match="best_wa"):
        load_model(folder.path, "best_wa")


def test_extra_data_that_is_missing_leaves_no_run_behind(tmp_path: Path) -> None:
    lost = recipe(tmp_path, data={"extra": {"path": str(tmp_path / "lost.npz")}})
    with pytest.raises(DataError, match=r"lost\.npz"):
        train_run(lost, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
