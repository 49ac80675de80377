"""Chunks on disk: nothing is lost, nothing is counted twice, nothing foreign is taken over."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.parallel.store import ChunkStore, key_of

IDENTITY = {"weights": "abc", "threat": ["Linf", 8 / 255], "seed": 0}


def chunk(number: int = 0) -> ChunkResult:
    return ChunkResult(
        label="autoattack",
        stage=1,
        chunk=number,
        indices=torch.tensor([3, 5, 8]),
        broken=torch.tensor([True, False, True]),
        predicted=torch.tensor([1, 2, 3]),
        margin=torch.tensor([-0.1, 1 / 3, -2e-8]),
        confidence=torch.tensor([0.9, 1 / 7, 1.0]),
        distance=torch.tensor([0.1, 1 / 3, 2e-8]),
        strays=1,
        seconds=0.25,
        forward=30,
        backward=20,
        flags=("odd",),
    )


def opened(folder: Path, identity: dict[str, Any] | None = None) -> tuple[ChunkStore, str]:
    said: list[str] = []
    store = ChunkStore.open(folder, identity or IDENTITY, said.append)
    return store, "".join(said)


def filled(folder: Path, count: int = 3) -> ChunkStore:
    store, said = opened(folder)
    assert said == ""
    assert (
        list(folder.iterdir() if folder.exists() else []) == []
    )  # nothing is made before there is a chunk
    for number in range(count):
        store.add(chunk(number))
    return store


def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path) -> None:
    filled(tmp_path / "partial")
    store, said = opened(tmp_path / "partial")
    assert said == "resuming: 3 chunks known"
    assert [known.chunk for known in store.known] == [0, 1, 2]
    for name, value in vars(chunk()).items():
        back = getattr(store.known[0], name)
        assert torch.equal(back, value) if isinstance(value, torch.Tensor) else back == value
    store.add(chunk(3))
    assert len(opened(tmp_path / "partial")[0].known) == 4
    store.remove()
    assert list(tmp_path.iterdir()) == []


def test_cut_off_anywhere_it_keeps_all_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = filled(tmp_path).path
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    ends = [sum(map(len, lines[: count + 1])) for count in range(1, 4)]
    for length in [*range(0, len(content), 37), *ends, *(end - 1 for end in ends)]:
        path.write_bytes(content[:length])
        store, _ = opened(tmp_path)
        assert len(store.known) == sum(end <= length for end in ends)
        store.add(chunk(7))
        again, _ = opened(tmp_path)
        assert [known.chunk for known in again.known] == [*range(len(store.known)), 7]


def test_a_chunk_written_twice_counts_once(tmp_path: Path) -> None:
    filled(tmp_path, 2).add(chunk(1))
    assert opened(tmp_path)[1] == "resuming: 2 chunks known"


@pytest.mark.parametrize(
    "damage",
    [('"strays"', '"stray"'), ("[1, 2, 3]", "[1, 2]"), ("0.25", "0.25}"), ("[-", '["x", -')],
)
def test_a_damaged_line_is_run_again_and_the_others_are_kept(
    tmp_path: Path, damage: tuple[str, str]
) -> None:
    path = filled(tmp_path).path
    lines = path.read_text().splitlines(keepends=True)
    assert damage[0] in lines[-1]
    path.write_text("".join(lines[:-1]) + lines[-1].replace(*damage))
    said = opened(tmp_path)[1]
    assert said.startswith("resuming: 2 chunks known")
    assert "1 damaged line in" in said


def test_a_changed_result_is_not_believed_and_costs_no_other(tmp_path: Path) -> None:
    """Each flag of a line in the middle flipped, each digit changed."""
    path = filled(tmp_path).path
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    start = len(lines[0]) + len(lines[1])
    changed = [place for place in range(start, start + len(lines[2])) if content[place] in b"01"]
    assert len(changed) > 20
    for place in changed:
        flipped = bytes([content[place] ^ 1])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])
        store, said = opened(tmp_path)
        assert [known.chunk for known in store.known] == [0, 2]
        assert "1 damaged line" in said
        assert path.read_bytes()[:place] == content[:place]


def test_two_that_began_at_the_same_moment_leave_what_a_third_can_use(tmp_path: Path) -> None:
    (one, _), (other, _) = opened(tmp_path), opened(tmp_path)
    for number in range(2):
        one.add(chunk(number))
        other.add(chunk(number))
    assert opened(tmp_path)[1] == "resuming: 2 chunks known"
    one.remove()
    other.add(chunk(2))
    assert opened(tmp_path)[1] == "resuming: 1 chunk known"
    other.remove()
    assert not tmp_path.exists()


def test_anything_changed_starts_afresh_and_says_what(tmp_path: Path) -> None:
    before = filled(tmp_path).path.read_bytes()
    for name, value in {"weights": "abd", "threat": ["L2", 8 / 255], "seed": 1}.items():
        store, said = opened(tmp_path, {**IDENTITY, name: value})
        assert store.known == ()
        assert said.startswith("starting afresh")
        assert f"had other {name};" in said
    assert opened(tmp_path)[0].path.read_bytes() == before
    assert key_of({"a": 1, "b": (1, 2)}) == key_of({"b": [1, 2], "a": 1})


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store, _ = opened(tmp_path / "file" / "partial")
    with pytest.raises(RunFolderError, match="cannot write"):
        store.add(chunk())


@pytest.mark.parametrize(
    "attacks", ["pgd-3,autoattack:square+apgd-ce+apgd-t+fab-t", "fgsm,audit:25"]
)
def test_killed_ten_times_it_ends_with_the_flags_of_one_uninterrupted_run(
    tmp_path: Path, attacks: str
) -> None:
    """SIGKILL at random moments; every start takes over what the ones before have written."""
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "10", attacks],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"killed": 10, "ends": [0, 0]}, done.stderr
    whole, resumed = (without_seconds(tmp_path / f"{name}.json") for name in ("whole", "resumed"))
    assert whole == resumed
    attacked = (tmp_path / "resumed.attacked").read_text().splitlines()
    assert len(attacked) == len(set(attacked)) > 15  # what was on disk was never attacked again
    assert not list(tmp_path.glob("*.partial"))


def without_seconds(file: Path) -> Any:
    found = json.loads(file.read_text())
    for result in found["results"]:
        result["seconds"] = 0
        for stage in result["stages"]:
            stage["seconds"] = 0
    return found
