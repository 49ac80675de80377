"""`rpat sweep` with real trainings, in processes of its own, on the embedded images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = """
recipe: {epochs: 1, attack: {steps: 1}, validation: {steps: 1, limit: 50}}
grid: {ra: [false, true]}
eval: clean
baseline: {ra: false}
"""


def rpat(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_two_real_trials_from_the_file_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SWEEP)
    listed = json.loads(rpat("sweep", "two.yaml", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [item["title"] for item in listed] == ["no ra, seed 0", "ra, seed 0"]
    assert all(
        item["command"].startswith("rpat train --config sweeps/two/trials/") for item in listed
    )
    assert not (tmp_path / "sweeps").exists()

    first = rpat("sweep", "two.yaml", "--jobs", "2", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "2/2  done" in first.stderr
    assert "table: sweeps/two/table.md" in first.stdout
    table = json.loads((tmp_path / "sweeps/two/table.json").read_text())
    for row in table["rows"]:
        [trial] = [item for item in listed if item["title"] == f"{row['label']}, seed 0"]
        report = json.loads(
            (tmp_path / "sweeps/two/trials" / trial["trial"] / "run/report.json").read_text()
        )
        [acc] = [
            result["acc"]
            for result in report["results"]
            if (result["checkpoint"], result["label"]) == (row["checkpoint"], "clean")
        ]
        assert row["stats"]["clean"] == {"mean": acc, "sd": None, "n": 1}

    # A second call with other attacks evaluates again what is trained already.
    epochs = {
        path: path.read_text() for path in tmp_path.glob("sweeps/two/trials/*/run/metrics.jsonl")
    }
    (tmp_path / "two.yaml").write_text(SWEEP.replace("eval: clean", "eval: [clean, fgsm]"))
    second = rpat("sweep", "two.yaml", "--quiet", "--json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert {name for row in json.loads(second.stdout)["rows"] for name in row["stats"]} == {
        "clean",
        "fgsm",
    }
    assert {path: path.read_text() for path in epochs} == epochs


@pytest.mark.slow
def test_the_cost_of_a_sweep_is_reported_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SWEEP + "seeds: 2")
    listed = json.loads(
        rpat("sweep", "two.yaml", "--dry-run", "--cost", "--json", cwd=tmp_path).stdout
    )
    plain, _, with_ra, _ = (item["cost"] for item in listed)
    # One attack step and the training step; robust perception adds the clean images and the point
    # between.
    assert with_ra["forward"] == 2 * plain["forward"]
    assert plain["seconds"] > 0
    assert not (tmp_path / "sweeps").exists()


def test_a_wrong_sweep_is_reported_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("grid: {method: [trade], optimizer.momentum: [2]}")
    done = rpat("sweep", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "2 mistakes in the sweep" in done.stderr
    assert "Did you mean 'trades'?" in done.stderr
    assert not (tmp_path / "sweeps").exists()
