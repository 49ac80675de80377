"""One evaluation by several processes, with the real command: killed, stopped, resumed by others,
failing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cli_calls import call, environment

from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.runs.build import architecture_for, build_data

RPAT = ("-m", "rpat_cli")
ATTACKS = "pgd-10x4,autoattack:apgd-ce"
ARGUMENTS = (
    "eval",
    "net.pt",
    "--attack",
    ATTACKS,
    "--eps",
    "0.02",
    "--batch-size",
    "5",
    "--limit",
    "40",
)
KEYS = (
    "label",
    "correct_after",
    "predicted",
    "broken_by",
    "distance",
    "margin",
    "forward",
    "backward",
    "flags",
)


def torchrun(count: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *RPAT)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A checkpoint of small-cnn after an epoch of plain training: some images break at eps 0.02,
    some do not."""
    recipe = resolve([Layer("test", {"model": "small-cnn", "device": "cpu"})])
    data = build_data(recipe.data, recipe.seed)
    architecture = architecture_for(recipe, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, (x, y) = architecture.build(), data.train.tensors()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    saved = {
        "recipe": recipe.model_dump(mode="json"),
        "architecture": architecture.to_dict(),
        "epoch": 1,
    }
    return {**saved, "model": model.state_dict()}


@pytest.fixture
def folder(content: dict[str, Any], tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "net.pt", content)
    return tmp_path


@pytest.fixture(scope="module")
def alone(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What one process finds: one of its own, with as many threads as those that share the work."""
    folder = tmp_path_factory.mktemp("alone")
    save_checkpoint(folder / "net.pt", content)
    assert call(*ARGUMENTS, cwd=folder).code == 0
    (file,) = (folder / "evals").glob("*.json")
    found = flags(file)
    assert 0 < found[-1][1].count("1") < 40
    return found


def flags(file: Path) -> list[Any]:
    return [[result[key] for key in KEYS] for result in json.loads(file.read_text())["results"]]


def start(folder: Path, *command: str, **extra: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def chunks(folder: Path) -> list[tuple[str, int, int]]:
    """Label, stage and number of every chunk on disk."""
    lines = [
        line
        for file in (folder / "evals" / "partial").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    return [(line["label"], line["stage"], line["chunk"]) for line in map(json.loads, lines[1:])]


def signal_after(
    process: "subprocess.Popen[str]", number: int, folder: Path, fresh: int
) -> tuple[str, list[Any]]:
    """Signal a command when it has written so many chunks; what it said, and the chunks that were
    then on disk."""
    known, deadline = len(chunks(folder)), time.monotonic() + 300
    while len(chunks(folder)) < known + fresh:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    time.sleep(1.5)  # a killed parent's children notice within a second
    return err, chunks(folder)


@pytest.mark.slow
def test_ranks_that_are_killed_or_stopped_leave_their_chunks_to_any_other_number_of_ranks(
    folder: Path, alone: list[Any]
) -> None:
    _, first = signal_after(start(folder, *torchrun(2), *ARGUMENTS), signal.SIGKILL, folder, 3)
    said, second = signal_after(start(folder, *torchrun(3), *ARGUMENTS), signal.SIGTERM, folder, 2)
    assert said.count(f"resuming: {len(first)} chunks known") == 1
    assert said.count("the chunks done are saved. Go on with: rpat eval net.pt") == 1
    assert second[: len(first)] == first
    assert len(second) == len(set(second)) > len(first) + 1
    out, err = start(folder, *torchrun(2), *ARGUMENTS, "--json-full").communicate(timeout=300)
    assert not err
    (file,) = (folder / "evals").glob("*.json")
    assert (
        json.loads(out).items() >= json.loads(file.read_text()).items()
    )  # one rank alone has spoken
    assert flags(file) == alone


@pytest.mark.slow
def test_jobs_that_are_killed_go_on_and_end_with_the_flags_of_one_process(
    folder: Path, alone: list[Any]
) -> None:
    before: list[Any] = []
    for fresh in (1, 4):
        process = start(folder, *RPAT, *ARGUMENTS, "--jobs", "2")
        _, now = signal_after(process, signal.SIGKILL, folder, fresh)
        assert now[: len(before)] == before
        assert len(now) == len(set(now)) >= len(before) + fresh
        before = now
    _, err = start(folder, *RPAT, *ARGUMENTS, "--jobs", "2").communicate(timeout=300)
    assert f"resuming: {len(before)} chunks known" in err
    (file,) = (folder / "evals").glob("*.json")
    assert flags(file) == alone


@pytest.mark.slow
def test_what_fails_in_one_rank_is_said_once_and_ends_all(folder: Path) -> None:
    (folder / "broken.py").write_text(
        "import os, torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if os.environ.get('RANK') == '1': raise MemoryError('this rank has no room')\n"
        "        return super().forward(x.flatten(1))\n"
        "def build(): return Net(784, 10)\n"
    )
    model = (
        "--model-file",
        "broken.py:build",
        "--data",
        "fashion-mini",
        "--limit",
        "40",
        "--batch-size",
        "1",
    )
    process = start(folder, *torchrun(2), "eval", *model, "--attack", "pgd-5")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    assert err.count("MemoryError: this rank has no room") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("sweep", "sweep.yaml"),
            "`rpat sweep` runs in one: each of them would write the same files",
        ),
        (
            ("eval", "net.pt", "--jobs", "2"),
            "the 2 processes of torchrun share the evaluation already",
        ),
    ],
)
def test_what_several_processes_cannot_share_is_refused_by_all_and_reported_by_the_first(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    ranks = [start(tmp_path, *RPAT, *arguments, **common, RANK=str(rank)) for rank in range(2)]
    said = [" ".join("".join(rank.communicate(timeout=300)).split()) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert message in said[0]
    assert said[1] == ""
    assert list(tmp_path.iterdir()) == []
