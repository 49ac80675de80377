"""`rpat runs`: what is listed, chosen, compared and removed, on runs of an earlier version."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rpat_cli.cli.app import app
from rpat_cli.errors import ConfigError, RunFolderError
from rpat_cli.loading.named import find_run, find_runs, recipe_of
from rpat_cli.records.lock import locked
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.choosing import choose_runs, differences, value_of
from rpat_cli.runs.cleanup import plan_removal, plan_whole_removal, remove
from rpat_cli.runs.listing import list_runs, size_of

OLD = Path(__file__).parents[1] / "compat" / "data"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/` with a finished run, a stopped one, and a sweep of two trials."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(OLD, "runs"))


def called(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["runs", *arguments])


def test_every_run_is_listed_with_what_its_files_say(runs: Path) -> None:
    listed = {run.path: run for run in list_runs(runs)}
    assert list(listed) == [  # by age; a trial's recipe is no run, its run folder is
        "runs/run",
        "runs/stopped",
        "runs/sweep/trials/d026bee8eab0/run",
        "runs/sweep/trials/a243fcd53790/run",
    ]
    done, stopped = listed["runs/run"], listed["runs/stopped"]
    lines = (runs / "run" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    best = max(epochs, key=lambda epoch: epoch["validation"]["robust_acc"])
    results = json.loads((runs / "run" / "report.json").read_text())["results"]
    of_best = {each["label"]: each["acc"] for each in results if each["checkpoint"] == "best"}
    assert (done.state, done.epochs, done.epochs_planned) == ("evaluated", 3, 3)
    assert (done.best_epoch, done.val_robust_acc) == (
        best["epoch"],
        best["validation"]["robust_acc"],
    )
    assert done.clean_acc == of_best.pop("clean")
    assert done.robust_acc == min(of_best.values()) == of_best[done.attack]
    assert done.method == "trades+ra+wa"
    assert (stopped.state, stopped.epochs, stopped.epochs_planned) == ("stopped", 1, 2)
    assert stopped.robust_acc is None
    assert done.bytes == sum(p.stat().st_size for p in (runs / "run").rglob("*") if p.is_file())


def test_a_run_in_training_is_told_from_a_stopped_one(runs: Path) -> None:
    with (runs / "stopped" / "log.txt").open("a") as log:
        assert locked(log)
        assert list_runs(runs)[1].state == "training"
        with pytest.raises(ConfigError, match="being trained by another process"):
            plan_whole_removal([RunFolder(runs / "stopped")])
    assert list_runs(runs)[1].state == "stopped"


@pytest.mark.parametrize(
    ("filters", "sort", "names"),
    [
        (["method=trades+ra+wa"], "", ["run"]),
        (["epochs>=1", "seed=0", "threat.eps<=0.1"], "began", ["run", "stopped", "d026", "a243"]),
        (["robust_acc>0.5"], "-robust_acc", ["run", "d026"]),
        ([], "-clean_acc", ["run", "d026", "a243", "stopped"]),  # what lacks it comes last
        (["path~SWEEP"], "clean_acc", ["a243", "d026"]),
        (["ra.mix=1/2"], "", ["run"]),
        (["state!=evaluated"], "", ["stopped"]),
        (["robust_acc=high"], "", []),
    ],
)
def test_runs_are_chosen_and_sorted(
    runs: Path, filters: list[str], sort: str, names: list[str]
) -> None:
    found = choose_runs(list_runs(runs), filters, sort)
    short = [Path(run.path).parent.name[:4] if "sweep" in run.path else run.name for run in found]
    assert short == names


def test_all_mistakes_in_a_choice_are_listed(runs: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_runs(list_runs(runs), ["nonsense", "robust=1"], "epochz")
    assert [str(problem)[:9] for problem in raised.value.problems] == ["--filter:"] * 2 + [
        "--sort: n"
    ]
    assert "Did you mean 'epochs'?" in str(raised.value)


def test_a_damaged_run_is_listed_with_a_remark(runs: Path) -> None:
    (runs / "run" / "report.json").write_text('{"recipe": 3}')
    (runs / "stopped" / "recipe.yaml").write_text("[")
    done, stopped, *_ = list_runs(runs)
    assert "rpat report runs/run" in done.remarks[0]
    assert "recipe.yaml cannot be read" in stopped.remarks[0]


def test_listing_imports_no_torch_and_runs_nothing(runs: Path) -> None:
    with (runs / "run" / "recipe.yaml").open("a") as recipe:
        recipe.write("plugins: [evil.py]\n")
    (runs / "run" / "evil.py").write_text("raise SystemExit('ran')")
    code = (
        "import sys; from rpat_cli.runs.listing import list_runs\n"
        "assert len(list_runs()) == 4 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert called("show", "run").exception.exit_code == 2  # what it names is not run unasked


def test_a_run_is_named_by_path_name_or_age(runs: Path) -> None:
    assert find_run("runs/run").path == find_run("run").path == runs / "run"
    # The newest of runs/ itself.
    assert find_run("last").path == runs / "stopped"
    with pytest.raises(RunFolderError, match="(?s)ran.*nowhere"):
        find_runs(["run", "ran", "nowhere"])
    with pytest.raises(RunFolderError, match="does not exist"):
        find_run("nowhere")


def test_recipes_differ_in_what_was_set(runs: Path) -> None:
    found = differences(recipe_of("run"), recipe_of("stopped"))
    assert found["method.name"] == ("trades", "pgd")
    assert found["ra.mix"] == (0.5, None)
    assert not differences(recipe_of("quickstart"), recipe_of("quickstart"))
    answer = called("diff", "run", "stopped", "--json")
    assert json.loads(answer.stdout)["epochs"] == {"a": 3, "b": 2}


def test_only_what_resuming_needs_is_removed_of_a_finished_run(runs: Path) -> None:
    run = runs / "run"
    (run / "checkpoints" / "best.prev.pt").write_bytes(b"old")
    (run / "checkpoints" / "notes.txt").write_text("mine")
    before = size_of(run)
    (removal,) = plan_removal([RunFolder(run)])
    expected = removal.bytes
    remove([removal])
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["best.pt", "best_wa.pt", "notes.txt"]
    assert before - size_of(run) == expected
    assert not plan_removal([RunFolder(run)])
    with pytest.raises(ConfigError) as raised:
        plan_removal([RunFolder(runs / "stopped")], ["best", "bets"])
    assert len(raised.value.problems) == 2
    (runs / "stopped" / "recipe.yaml").write_text("[")
    with pytest.raises(ConfigError, match="may not be finished"):
        plan_removal([RunFolder(runs / "stopped")])


def test_a_whole_run_goes_but_not_what_is_not_its_own(runs: Path, tmp_path: Path) -> None:
    run, outside = runs / "run", tmp_path / "outside.json"
    outside.write_text("{}")
    (run / "evals" / "link.json").symlink_to(outside)
    (run / "notes.txt").write_text("mine")
    answer = called("rm", "run", "--whole", "--yes")
    assert answer.exit_code == 0
    assert [path.name for path in run.rglob("*")] == ["notes.txt"]
    assert "notes.txt" in answer.stderr
    assert outside.read_text() == "{}"
    assert called("rm", "run", "--whole", "--yes").exception.exit_code == 1  # a run no longer
    assert called("rm", "runs/sweep/trials/a243fcd53790/run", "--whole", "--yes").exit_code == 0
    assert not (runs / "sweep" / "trials" / "a243fcd53790" / "run").exists()


def test_a_linked_folder_of_a_run_is_not_followed(runs: Path, tmp_path: Path) -> None:
    run, elsewhere = runs / "run", tmp_path / "elsewhere"
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    assert not plan_removal([RunFolder(run)])
    remove(plan_whole_removal([RunFolder(run)]))
    assert len(list(elsewhere.iterdir())) == 4


def test_nothing_is_removed_unasked(runs: Path) -> None:
    before = sorted((runs / "run").rglob("*"))
    answer = called("rm", "run")
    assert answer.exception.exit_code == 2
    assert "last.pt" in answer.stderr
    assert sorted((runs / "run").rglob("*")) == before
    answer = called("rm", "run", "--keep", "best,best_wa,last", "--yes")
    assert answer.stdout.startswith("removed 1 file, ")


def test_what_is_shown_of_one_run(runs: Path) -> None:
    answer = called("show", "run", "--json")
    shown = json.loads(answer.stdout)
    assert shown["robust_acc"] == value_of(list_runs(runs)[0], "robust_acc")
    assert shown["report"]["results"]
    assert "trades" in called("show", "run").stdout
