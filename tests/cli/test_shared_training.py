"""One training by several processes, with the real command: started, stopped, killed, begun again,
and gone on with by another number of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_calls import call, environment

from rpat_cli.cli import together
from rpat_cli.errors import ConfigError

TINY = (
    *("--epochs", "3", "--steps", "1", "--batch-size", "300", "--eval", "clean"),
    *("--set", "validation.steps=1", "--set", "data.val_size=100"),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(true: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 400
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def ranks_of(launcher: "subprocess.Popen[str]") -> dict[str, int]:
    """The processes that it has started, by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    found = {}
    for child in children:
        try:
            lines = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        found |= {line.decode()[5:]: int(child) for line in lines if line.startswith(b"RANK=")}
    return found


def epochs(run: Path) -> int:
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def weights(run: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.pt")["model"]
    return model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_of_two_ranks_stops_at_a_signal_and_one_process_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(tmp_path, "-m", "rpat_cli", "train", *TINY, "--ranks", "2", "--out", "run")
    until(lambda: epochs(run), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.count("error:") == 1
    assert "everything is saved. Go on with: rpat train --resume run" in " ".join(err.split())
    assert err.count("epoch 1/3") == 1  # one rank alone speaks
    answer = call("train", "--resume", "run", cwd=tmp_path)
    assert answer.code == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert (records[0]["ranks"], records[2]["ranks"]) == (2, 1)
    assert records[0]["forward"] == 2 * records[2]["forward"]
    assert "ranks: 2" in (run / "log.txt").read_text()
    assert "No command repeats this run exactly" in (run / "recipe.yaml").read_text()


def test_a_mistake_is_said_once_before_any_process_is_started(tmp_path: Path) -> None:
    answer = call("train", *TINY, "--ranks", "2", "--method", "tardes", cwd=tmp_path)
    assert answer.code == 2
    assert "Did you mean 'trades'?" in answer.message
    assert answer.err.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_gpus_that_are_not_there_are_refused_with_the_flag_for_cpus() -> None:
    with pytest.raises(ConfigError, match="finds no GPU on this machine.* use --ranks 2"):
        together.launch_if_asked(None, 2, None)


def test_flags_that_contradict_each_other_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        together.check_flags(2, 3, dry_run=True)
    assert "--ranks: cannot be combined with --gpus" in str(caught.value)
    assert "--dry-run: takes its steps in one process" in str(caught.value)


def test_flags_that_torchrun_contradicts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    together.check_flags(4, None, dry_run=False)
    with pytest.raises(ConfigError, match="2, but torchrun has started 4 processes here"):
        together.check_flags(2, None, dry_run=False)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_is_killed_ends_all_with_one_message(tmp_path: Path, rank: str) -> None:
    process = start(tmp_path, "-m", "rpat_cli", "train", *TINY, "--ranks", "2", "--out", "run")
    until(lambda: epochs(tmp_path / "run"), process)
    ranks = ranks_of(process)
    os.kill(ranks[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("error:") == 1
    assert "go on with" in err.lower()
    assert not any(Path(f"/proc/{each}").exists() for each in ranks.values())


@pytest.mark.slow
def test_killed_at_five_moments_torchrun_ends_with_the_weights_of_an_undisturbed_training(
    tmp_path: Path,
) -> None:
    train = ("-m", "rpat_cli", "train", *TINY, "--eval", "clean,pgd-200")
    whole = start(tmp_path, *train, "--ranks", "2", "--out", "whole")
    _, err = whole.communicate(timeout=600)
    assert whole.returncode == 0, err
    process = start(tmp_path, *TORCHRUN, "--max-restarts", "5", *train, "--out", "run")
    run = tmp_path / "run"
    moments: list[tuple[Callable[[], object], str]] = [
        (lambda: len(ranks_of(process)) == 2, "1"),  # before there is a run
        (lambda: (run / "recipe.yaml").exists() and epochs(run) == 0, "1"),
        (lambda: epochs(run) == 1, "0"),
        (lambda: epochs(run) == 2, "1"),
        (lambda: epochs(run) == 3, "0"),  # in the evaluation that ends it
    ]
    killed: set[int] = set()
    for moment, rank in moments:
        until(lambda moment=moment: moment() and ranks_of(process).keys() == {"0", "1"}, process)  # type: ignore[misc]
        until(lambda: not killed & set(ranks_of(process).values()), process)
        victim = ranks_of(process)[rank]
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
        until(lambda victim=victim: victim not in ranks_of(process).values(), process)  # type: ignore[misc]
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.count("started again by the same launcher: going on with run") >= 3
    assert same(weights(run), weights(tmp_path / "whole"))
    assert (run / "report.json").exists()
    assert not (run / ".launchers").exists()


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_all_ranks_answer_a_collapse_alike(tmp_path: Path, action: str) -> None:
    """One step of a huge radius from the image itself overfits to that step within few epochs."""
    weak = ("--eps", "0.35", "--steps", "1", "--step-size", "0.35", "--set", "attack.start=zero")
    guarded = ("--ranks", "2", "--epochs", "6", "--eval", "clean", "--on-collapse", action)
    done = call("train", *weak, *guarded, "--out", "run", cwd=tmp_path)
    assert done.code == 0, done.err
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    noted = {"stop": "collapsed", "rollback": "rolled_back"}[action]
    at = [epoch["epoch"] for epoch in epochs if epoch["watched"].get(noted)]
    assert len(at) == 1
    assert len(epochs) == (at[0] if action == "stop" else 6)
    assert f"collapsed in epoch {at[0]}" in done.err
