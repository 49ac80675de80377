"""Searches with real trainings, in processes of their own, on the embedded images."""

import json
from pathlib import Path

import pytest
from test_sweep_cli import rpat

RECIPE = "recipe: {epochs: 2, attack: {steps: 1}, validation: {steps: 1, limit: 50}}\neval: clean\n"


@pytest.mark.slow
def test_asha_stops_real_trainings_before_they_see_the_test_set(tmp_path: Path) -> None:
    axes = "grid: {optimizer.lr: [0.001, 0.05]}\nsearch: {asha: {min_epochs: 1, factor: 2}}"
    (tmp_path / "halves.yaml").write_text(RECIPE + axes)
    listed = json.loads(rpat("sweep", "halves.yaml", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert all(item["command"].endswith("--stop-after 1") for item in listed)
    done = rpat("sweep", "halves.yaml", "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pruned   optimizer.lr=0.001, seed 0: stopped at epoch 1 by asha" in done.stderr
    assert "optimizer.lr=0.001: stopped at epoch 1 by asha" in done.stdout
    worse, better = (tmp_path / "sweeps/halves/trials" / item["trial"] / "run" for item in listed)
    assert len((worse / "metrics.jsonl").read_text().splitlines()) == 1
    assert not list(worse.glob("evals/*"))
    assert not (worse / "report.json").exists()
    assert len((better / "metrics.jsonl").read_text().splitlines()) == 2
    assert (better / "report.json").exists()
    listed = json.loads(rpat("sweep", "halves.yaml", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [item["state"] for item in listed] == ["pruned", "done"]


@pytest.mark.slow
def test_optuna_asks_for_real_trainings_and_goes_on_later(tmp_path: Path) -> None:
    search = (
        "search: {optuna: {trials: %d, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}, objective: "
        "[clean_acc, robust_acc]}}"
    )
    (tmp_path / "asked.yaml").write_text(RECIPE + search % 1)
    assert (
        "the search will add up to 1 more"
        in rpat("sweep", "asked.yaml", "--dry-run", cwd=tmp_path).stderr
    )
    assert not (tmp_path / "sweeps").exists()
    first = rpat("sweep", "asked.yaml", "--quiet", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (tmp_path / "asked.yaml").write_text(RECIPE + search % 2)
    second = rpat("sweep", "asked.yaml", "--quiet", "--json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    tables = [json.loads(done.stdout) for done in (first, second)]
    assert [len(table["rows"]) for table in tables] == [2, 4]  # best and last of each
    assert tables[1]["rows"][:2] == tables[0]["rows"]
    assert all(
        note.startswith("on the Pareto front (validation): optimizer.lr=")
        for note in tables[1]["notes"]
    )
    assert 1 <= len(tables[1]["notes"]) <= 2
