"""Trials that several processes share: what the engines ask for, and how launchers on two nodes
become one training."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rpat_cli.sweep.engines import ENGINES, node, slurm_cluster
from rpat_cli.sweep.engines.local import local_slots
from rpat_cli.sweep.engines.node import Attempt, Work, shared_by


def section(name: str, **settings: Any) -> Any:
    return ENGINES[name].model_validate({"name": name, **settings})


def test_the_processes_of_a_trial_share_its_cores() -> None:
    assert shared_by(1, 8) == node.threads(8)
    assert shared_by(4, 8) == {**node.threads(2), "RPAT_RANKS": "4"}
    assert shared_by(4, 2)["OMP_NUM_THREADS"] == "1"


def test_a_local_slot_has_a_gpu_or_its_cores_for_each_rank() -> None:
    two = {"RPAT_RANKS": "2"}
    assert local_slots(None, ["0", "1", "2", "3", "4"], 8, 2) == [
        {"CUDA_VISIBLE_DEVICES": "0,1", **two},
        {"CUDA_VISIBLE_DEVICES": "2,3", **two},
    ]
    assert local_slots(None, [], 8, 2) == [{**node.threads(1), **two}] * 4
    assert local_slots(1, [], 8, 2) == [{**node.threads(4), **two}]
    assert local_slots(None, ["0", "1"], 8) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]


def test_a_slurm_trial_on_two_nodes_asks_for_them() -> None:
    asked = slurm_cluster._parameters(section("slurm", nodes=2, gpus=4), "name")
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"]) == (2, 1, 4)
    assert "nodes" not in slurm_cluster._parameters(section("slurm"), "name")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of Slurm on the nodes one and two: a folder for its logs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/bin/sh\necho one\necho two\n")
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    monkeypatch.setenv("SLURM_JOB_ID", "40007")
    return tmp_path


def test_every_node_starts_the_command_and_knows_where_to_meet(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    show = "import os; print([os.environ[k] for k in sorted(os.environ) if k[:5] == 'RPAT_'])"
    work = Work((sys.executable, "-c", show), job / "log.txt", {"RPAT_RANKS": "8"}, job, nodes=2)
    for number in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", number)
        assert Attempt(work, b"")() == 0
    meeting = "['40007-0', '2', '8', 'one:20007']"
    assert (job / "log.txt").read_text().strip() == meeting
    assert (job / "node1" / "log.txt").read_text().strip() == meeting


@pytest.mark.slow
def test_launchers_on_two_nodes_become_one_training(tmp_path: Path) -> None:
    train = (
        *("-m", "rpat_cli", "train", "--epochs", "1", "--steps", "1", "--eval", "clean"),
        *("--batch-size", "300", "--set", "data.val_size=100", "--out", "run"),
    )
    env = {
        **os.environ,
        **shared_by(1, 1),
        "RPAT_NODES": "2",
        "RPAT_RANKS": "1",
        "RPAT_LAUNCH_ID": "test",
        "RPAT_RENDEZVOUS": "localhost:29731",
    }
    launchers = [
        subprocess.Popen([sys.executable, *train], cwd=tmp_path, env=env) for _ in range(2)
    ]
    assert [launcher.wait(timeout=400) for launcher in launchers] == [0, 0]
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["ranks"] == 2
