"""Runs, evaluations and a sweep that an earlier version wrote are read, gone on with and compared.

`data/` was made by version 0.1.0 before its modules moved: `run` (TRADES with robust perception and
averaging, three epochs, five evaluations, all diagnostics in one of them), `stopped` (one of two
epochs) and `sweep` (two finished trials). Paths and the name of the platform are taken out.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rpat_cli
from rpat_cli.evaluation.results import parse_evaluation
from rpat_cli.recipe.layers import read_yaml, resolve
from rpat_cli.records import eval_file
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.metrics import read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.write import write_report
from rpat_cli.runs.compare import compare_files, match

DATA = Path(__file__).parent / "data"
RECIPES = sorted(path.relative_to(DATA) for path in DATA.rglob("recipe.yaml"))
EVALUATIONS = sorted(path.relative_to(DATA) for path in DATA.rglob("evals/*.json"))
REPORTS = sorted(path.relative_to(DATA) for path in DATA.rglob("report.json"))
CHECKPOINTS = sorted(path.relative_to(DATA) for path in DATA.rglob("*.pt"))

DIAGNOSTICS = ("verdict", "perception", "eps_curve", "loss_surface", "corruptions")

VERSIONS = {"torch": "2.14.1", "pyautoattack": "0.2.0", "foolbox": "3.3.4"}
"""With these on a CPU the data was made. Elsewhere an evaluation is made again: it may differ."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the data, to work on."""
    return Path(shutil.copytree(DATA, tmp_path / "old"))


def rpat(*arguments: str, cwd: Path) -> str:
    """What the command says, stderr after stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_kept(old: Any, new: Any, where: str = "") -> None:
    """Everything in `old` is in `new` with the same value; new keys may have come in addition.

    What is computed again of numbers read may differ in its last digit: processors add otherwise.
    """
    if isinstance(old, Mapping):
        for key, value in old.items():
            # The one key of recipes that has another name now.
            name = "normalize_as" if key == "normalise_as" and key not in new else key
            assert name in new, f"{where}.{name} is missing"
            assert_kept(value, new[name], f"{where}.{name}")
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for k, (before, after) in enumerate(zip(old, new, strict=True)):
            assert_kept(before, after, f"{where}[{k}]")
    elif isinstance(old, float) and isinstance(new, float):
        assert math.isclose(new, old, rel_tol=1e-12) or (new != new and old != old), where
    else:
        assert new == old, where


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_recipe_resolves_to_what_it_says(path: Path) -> None:
    recipe = resolve([read_yaml(DATA / path)])
    assert_kept(yaml.safe_load((DATA / path).read_text()), recipe.model_dump(mode="json"))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=str)
def test_a_checkpoint_is_whole_and_its_model_loads(path: Path) -> None:
    content = load_checkpoint(DATA / path)
    saved = rpat_cli.load_model(DATA / path)
    assert saved.epoch == content["epoch"]
    weights = saved.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in content["model"].items())
    assert saved.model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("path", EVALUATIONS, ids=str)
def test_an_evaluation_is_read_with_the_numbers_it_was_written_with(path: Path) -> None:
    file = eval_file.read(DATA / path)
    again = json.loads(json.dumps(parse_evaluation(file).to_dict()))
    assert_kept(again, file.record)
    assert file.key
    assert file.pending == ()


@pytest.mark.parametrize("path", REPORTS, ids=str)
def test_a_run_is_reported_with_the_same_numbers(old: Path, path: Path) -> None:
    folder = RunFolder((old / path).parent)
    before = json.loads(folder.report.read_text())
    after = json.loads(json.dumps(write_report(folder).to_dict()))
    measured = ("training", "checkpoints", "class_names", "device", "results", "scores")
    for key in measured:
        assert_kept(before[key], after[key], key)
    assert_kept(before["recipe"], after["recipe"])
    assert_kept(before["closer_looks"], after["closer_looks"])
    assert after == json.loads(folder.report.read_text())
    assert "<h1" in folder.html.read_text()


def test_every_diagnostic_of_an_old_evaluation_is_in_the_report(old: Path) -> None:
    report = build_report(RunFolder(old / "run"))
    assert set(report.diagnostics) == set(DIAGNOSTICS)
    assert not any("cannot be read" in remark for remark in report.remarks)


def test_two_old_evaluations_are_compared(old: Path) -> None:
    comparisons = compare_files(old / "run", old / "sweep/trials/d026bee8eab0/run")
    assert {each.label: (each.a.correct, each.b.correct) for each in comparisons} == {
        "clean": (346, 339),
        "pgd-3": (290, 251),
    }


def test_an_old_model_is_evaluated_again_to_the_same_numbers(old: Path) -> None:
    before = parse_evaluation(eval_file.read(DATA / EVALUATIONS[0]))
    now, file = rpat_cli.evaluate(old / "run", "clean,pgd-3")
    assert eval_file.newest(old / "run/evals").path == file  # type: ignore[union-attr]
    assert torch.equal(now.y, before.y)
    # Another kind of processor rounds otherwise: an image or two may lie on the other side.
    assert abs(now.clean.correct - before.clean.correct) <= 2
    assert abs(now.robust.correct - before.robust.correct) <= 2


def test_a_finished_run_is_not_trained_again(old: Path) -> None:
    before = contents(old / "run")
    rpat("train", "--resume", "run", cwd=old)
    after = contents(old / "run")
    assert after["metrics.jsonl"] == before["metrics.jsonl"]
    assert {name: after[name] for name in before if name.startswith("evals/")} == {
        name: text for name, text in before.items() if name.startswith("evals/")
    }
    if made_here():  # then the evaluations of best and its average are recognized
        assert {name for name in after if name.startswith("evals/")} <= before.keys()


def made_here() -> bool:
    """Would an evaluation here have the key that the old ones have?"""
    try:
        installed = {name: version(name) for name in VERSIONS}
    except PackageNotFoundError:
        return False
    on_cpu = not torch.cuda.is_available()
    return on_cpu and rpat_cli.__version__ == "0.1.0" and installed == VERSIONS


def test_a_stopped_run_goes_on_to_its_last_epoch(old: Path) -> None:
    folder = RunFolder(old / "stopped")
    (first,) = read_metrics(folder.metrics)
    rpat("train", "--resume", "stopped", cwd=old)
    records = read_metrics(folder.metrics)
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[0] == first
    report = build_report(folder)
    assert {row.checkpoint.name for row in report.rows} == {"best", "last"}
    assert report.labels == ("clean", "pgd-3")
    # It has gone on from the old weights: a first epoch reaches 32 %, a second one 49 %.
    assert records[1]["train"]["robust_acc"] > first["train"]["robust_acc"] + 0.1


def test_a_finished_sweep_trains_nothing_and_keeps_its_table(old: Path) -> None:
    trials, table = (
        contents(old / "sweep/trials"),
        json.loads((old / "sweep/table.json").read_text()),
    )
    said = rpat("sweep", "sweep.yaml", "--out", "sweep", cwd=old)
    assert "2 done" in said
    after = contents(old / "sweep/trials")
    assert {name: after[name] for name in trials} == trials
    for row in table["rows"]:
        row["label"] = row["label"].removeprefix("method.name=")  # as an axis is called now
    assert_kept(table, json.loads((old / "sweep/table.json").read_text()))
    before = (DATA / "sweep/table.csv").read_text().replace("method.name=", "")
    assert (old / "sweep/table.csv").read_text() == before


def test_a_comparison_is_what_the_two_files_say(old: Path) -> None:
    """Against a script of its own, which reads nothing but the JSON."""
    runs = [old / "sweep" / "trials" / name / "run" for name in ("a243fcd53790", "d026bee8eab0")]
    matched = match(*runs)
    files = [max((run / "evals").glob("best_*.json")) for run in runs]
    assert [list(matched.files_a), list(matched.files_b)] == [[file] for file in files]
    a, b = (json.loads(file.read_text())["results"][0] for file in files)
    assert a["label"] == b["label"] == "clean"
    a, b = (json.loads(file.read_text())["results"][1] for file in files)
    right = list(zip(a["correct_after"], b["correct_after"], strict=True))
    only_a = [i for i, pair in enumerate(right) if pair == ("1", "0")]
    only_b = [i for i, pair in enumerate(right) if pair == ("0", "1")]
    n, k = len(only_a) + len(only_b), min(len(only_a), len(only_b))
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    (found,) = (each for each in matched.comparisons if each.label == a["label"])
    assert list(found.only_a) == only_a
    assert list(found.only_b) == only_b
    assert found.p == pytest.approx(p)
    assert found.a.value == a["correct_after"].count("1") / len(right) == a["robust_acc"]
    assert found.b.value == b["correct_after"].count("1") / len(right) == b["robust_acc"]
