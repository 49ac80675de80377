"""What the experiment runs beside its sweeps: evaluations of finished trials, and trials again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rpat_cli.records.run_folder import RunFolder

Scripts = dict[str, ModuleType]

OLD_RUN = Path(__file__).parent.parent / "compat" / "data" / "run"

SAY = (
    "import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.argv[2:]); sys.exit(int(sys.argv[1]))"
)

SAVES = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(60)
"""


def a_queue(scripts: Scripts, folder: Path, trials: list[str], code: int) -> list[str]:
    """Run a task for each, all with that exit code, and return the problems."""
    row, runs = scripts["claim_data"].Row, scripts["claim_runs"]
    tasks = [runs.Task(row("pgd", "", 0, trial, "best", "apgd-t"), ("--a",)) for trial in trials]
    runs.RPAT, runs.missing = (sys.executable, "-c", SAY, str(code)), lambda rows, audits: tasks
    problems: list[str] = runs.measure(folder, 1, audits=True)
    return problems


@pytest.fixture
def patched(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    """Scripts whose names a test may set: they are as before when it is over."""
    runs = scripts["claim_runs"]
    for name in ("RPAT", "missing"):
        monkeypatch.setattr(runs, name, getattr(runs, name))
    monkeypatch.setattr(runs, "collect", lambda folder: [])
    monkeypatch.setattr(runs, "POLL", 0.02)
    monkeypatch.setattr("rpat_cli.sweep.engines.local.usable_cores", lambda: 3)
    return scripts


def test_evaluations_run_one_after_another_where_nothing_else_does(
    patched: Scripts, tmp_path: Path
) -> None:
    from rpat_cli.sweep.engines.node import exclusive

    for name in ("a", "b"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    with exclusive(tmp_path / "trials" / "b" / "log.txt"):  # as a trial that is running
        problems = a_queue(patched, tmp_path, ["a", "b", "a"], 0)
    assert problems == [f"pgd, seed 0: another process works in {tmp_path / 'trials' / 'b'}"]
    log = (tmp_path / "trials" / "a" / "measure.txt").read_text()
    assert log.count("'--checkpoint', 'best', '--a', '--jobs', '1'") == 2
    assert [line.split()[0] for line in log.splitlines() if line[0] != "$"] == ["3", "3"]
    assert not (tmp_path / "trials" / "b" / "measure.txt").exists()


def test_an_evaluation_that_fails_is_named_with_its_log(patched: Scripts, tmp_path: Path) -> None:
    (tmp_path / "trials" / "a").mkdir(parents=True)
    log = tmp_path / "trials" / "a" / "measure.txt"
    assert a_queue(patched, tmp_path, ["a"], 1) == [f"pgd, seed 0: exit code 1, see {log}"]


def test_a_signal_asks_what_runs_to_save_and_starts_nothing_more(
    patched: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    monkeypatch.setitem(globals(), "SAY", SAVES)
    with pytest.raises(SystemExit) as ended:
        a_queue(patched, tmp_path, ["a", "b"], 0)
    assert ended.value.code == 75
    assert not (tmp_path / "trials" / "b" / "measure.txt").exists()


def change_records(run: Path) -> None:
    first, rest = (run / "metrics.jsonl").read_text().split("\n", 1)
    record = json.loads(first)
    record["train"]["loss"] += 1e-12
    (run / "metrics.jsonl").write_text(f"{json.dumps(record)}\n{rest}")


def change_times(run: Path) -> None:
    first, rest = (run / "metrics.jsonl").read_text().split("\n", 1)
    record = {**json.loads(first), "seconds": 1.0, "images_per_second": 2.0}
    (run / "metrics.jsonl").write_text(f"{json.dumps(record)}\n{rest}")


def change_weights(run: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    next(iter(content["model"].values())).view(-1)[0] += 1e-6
    torch.save(content, run / "checkpoints" / "last.pt")


def change_evaluations(run: Path) -> None:
    """The distance of one image, which no accuracy shows."""
    for file in (run / "evals").glob("*.json"):
        record = json.loads(file.read_text())
        distances = record["results"][-1]["distance"]
        at = next(i for i, distance in enumerate(distances) if distance)
        distances[at] *= 0.99
        file.write_text(json.dumps(record))


def change_report(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["results"][0]["acc"] += 0.01
    (run / "report.json").write_text(json.dumps(report))


def lose_an_evaluation(run: Path) -> None:
    next((run / "evals").glob("best_wa_*.json")).unlink()


def lose_an_accuracy(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    del report["results"][0]
    (run / "report.json").write_text(json.dumps(report))


def lose_what_was_added(run: Path) -> None:
    """By evaluations of other attacks, and of some of the images."""
    for file in (run / "evals").glob("*.json"):
        if [each["label"] for each in json.loads(file.read_text())["results"]] != PLANNED:
            file.unlink()
    report = json.loads((run / "report.json").read_text())
    report["results"] = [each for each in report["results"] if each["label"] in PLANNED]
    (run / "report.json").write_text(json.dumps(report))


PLANNED = ["clean", "pgd-3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: None, ""),
        (change_times, ""),
        (change_records, "the records of the epochs"),
        (change_weights, "the weights of last"),
        (change_evaluations, "what "),
        (change_report, "the report's accuracies of "),
        (lose_an_evaluation, "what best_wa clean,pgd-3 found"),
        (lose_an_accuracy, "the report's accuracies of best"),
        (lose_what_was_added, ""),
    ],
)
def test_what_differs_between_two_trainings_is_said(
    scripts: Scripts, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    shutil.copytree(OLD_RUN, tmp_path / "run")
    change(tmp_path / "run")
    found = list(scripts["claim_runs"].differences(RunFolder(OLD_RUN), RunFolder(tmp_path / "run")))
    assert bool(found) == bool(said)
    assert all(text.startswith(said) for text in found)


def test_nothing_to_repeat_is_said(
    scripts: Scripts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claim-selection").mkdir()
    table = {"metrics": ["clean", "fgsm"], "rows": [], "failures": {}}
    (tmp_path / "claim-selection" / "table.json").write_text(json.dumps(table))
    assert scripts["claim"].main(["--repeat", "1", str(tmp_path / "claim-selection")]) == 1
    assert "no trial has finished; go on with rpat sweep first" in capsys.readouterr().err


SWEEP = """
list: [{method: pgd}]
recipe: {data: fashion-mini, epochs: 1, attack: {steps: 1}, validation: {limit: 50}}
seeds: 1
eval: [clean, fgsm]
"""


@pytest.mark.slow
def test_a_trial_again_is_the_same_bit_for_bit(
    scripts: Scripts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    folder = tmp_path / "claim-selection"
    command = [sys.executable, "-m", "rpat_cli", "sweep", str(tmp_path / "tiny.yaml"), "--quiet"]
    subprocess.run([*command, "--out", str(folder), "--jobs", "2"], check=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the trial's own number counts
    again = ["--repeat", "1", "--seed", "3", str(folder)]
    assert scripts["claim"].main(again) == 0
    assert "claim-selection, --seed 3: pgd, seed 0 (" in (said := capsys.readouterr().out)
    assert "the same, bit for bit" in said
    monkeypatch.setattr(scripts["claim"], "repeat", lambda folder, seed: ("pgd", ["the weights"]))
    assert scripts["claim"].main(again) == 3
    assert "pgd: NOT the same: the weights" in capsys.readouterr().out
