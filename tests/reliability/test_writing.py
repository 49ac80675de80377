"""What rpat writes goes into the folder that it was meant for, under a name that nobody prepared,
and what killed processes left is cleaned up."""

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.errors import RpatError, RunFolderError
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.parallel.store import ChunkStore
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records import eval_file
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.files import remove_leftovers, write_new, write_whole
from rpat_cli.records.metrics import EpochRecord, append_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.evaluate import eval_run
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import train_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, as POSIX has them")

RECIPE: dict[str, Any] = {
    "model": "small-cnn",
    "method": "standard",
    "epochs": 2,
    "batch_size": 500,
    "attack": {"steps": 1},
    "validation": {"steps": 1, "limit": 50},
    "eval": ["clean"],
    "device": "cpu",
}
RECORD = EpochRecord(1, 0.1, {"loss": 1.0}, 1.0, 1.0)


@pytest.fixture
def stopped(tmp_path: Path) -> RunFolder:
    torch.set_num_threads(1)
    return train_run(resolve([Layer("test", RECIPE)]), out=tmp_path / "run", stop_after=1)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's that a link leads to."""
    path = tmp_path / "home" / ".bashrc"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def a_chunk() -> ChunkResult:
    one = torch.zeros(1)
    return ChunkResult(
        "pgd",
        0,
        0,
        one.long(),
        one.bool(),
        one.long(),
        one,
        one,
        one,
        strays=0,
        forward=1,
        backward=1,
    )


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "recipe.yaml", "report.json"])
def test_a_file_that_is_a_link_is_replaced_or_refused(
    name: str, stopped: RunFolder, victim: Path
) -> None:
    """Whether it leads to a file or to where one could be made."""
    for target in (victim, victim.with_name("new")):
        (stopped.path / name).unlink(missing_ok=True)
        if name == "recipe.yaml":  # it is read first: a link may be, if only it is not written
            target.write_text("mine")
        (stopped.path / name).symlink_to(target)
        before = target.read_text() if target.exists() else None
        with suppress(RpatError):  # a recipe that is none is a mistake of another kind
            resume_run(stopped.path)
        assert (target.read_text() if target.exists() else None) == before


@pytest.mark.parametrize("name", ["checkpoints", "evals"])
def test_a_folder_that_is_a_link_is_refused(name: str, stopped: RunFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (stopped.path / name).rename(elsewhere)
    (stopped.path / name).symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    with pytest.raises(RunFolderError, match="is a link"):
        resume_run(stopped.path)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_the_run_folder_itself_may_be_a_link(stopped: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(stopped.path)
    resume_run(tmp_path / "shortcut")
    assert stopped.report.exists()
    eval_run(tmp_path / "shortcut", parse_suite("clean"))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_chunks_are_not_written_through_links(depth: int, tmp_path: Path, victim: Path) -> None:
    """The file, its folder, or the folder of evaluations."""
    partial = tmp_path / "run" / "evals" / "partial"
    store = ChunkStore.open(partial, {"weights": "x"}, lambda _: None)
    place = [store.path, partial, partial.parent][depth]
    place.parent.mkdir(parents=True)
    place.symlink_to(victim if depth == 0 else victim.parent)
    with pytest.raises(RunFolderError, match="link"):
        store.add(a_chunk())
    assert [path.name for path in victim.parent.iterdir()] == [".bashrc"]
    assert victim.read_text() == "mine"


def test_the_other_writers_follow_no_link(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "evals").symlink_to(victim.parent)
    (folder / "metrics.jsonl").symlink_to(victim)
    (folder / "report.json").symlink_to(victim)
    with pytest.raises(RunFolderError, match="is a link"):
        eval_file.write_new(folder / "evals", "best", {})
    with pytest.raises(RunFolderError, match="is a link"):
        save_checkpoint(folder / "evals" / "last.pt", {})
    with pytest.raises(RunFolderError, match="is a link"):
        append_metrics(folder / "metrics.jsonl", RECORD)
    write_whole(folder / "report.json", "new")
    assert (folder / "report.json").read_text() == "new"
    assert not (folder / "report.json").is_symlink()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(RunFolderError, match="cannot write"):
        append_metrics(path, RECORD)


def test_temporary_names_cannot_be_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They differ each time, and one that exists in spite of that is never written through."""
    names = []
    really = os.open

    def noting(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if str(path).endswith(".tmp"):
            names.append(Path(path).name)
            assert flags & os.O_EXCL
            assert flags & os.O_CREAT
        return really(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", noting)
    for _ in range(2):
        write_whole(tmp_path / "report.json", "x")
        write_new(tmp_path / "new.json", "x")
        save_checkpoint(tmp_path / "last.pt", {})
    assert len(names) == len(set(names)) == 6


def test_files_get_the_modes_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "x")
        save_checkpoint(tmp_path / "b", {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o640}


KILLED = """
import os, sys
from pathlib import Path
from rpat_cli.records import files
files.os.fsync = lambda _: os.kill(os.getpid(), 9)
files.write_whole(Path(sys.argv[1]), "half")
"""


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    theirs = tmp_path / "thesis.tmp"  # no name of ours
    alive = left.with_name(left.name.replace(left.name.split(".")[-3], str(os.getpid())))
    elsewhere = tmp_path / "report.json.other-host.1.0123abcd.tmp"
    old = tmp_path / "last.4242.tmp"  # as earlier versions named them
    for each in (theirs, alive, elsewhere, old):
        each.write_text("x")
    os.utime(old, (1, 1))
    write_whole(path, "whole")
    assert {each.name for each in tmp_path.iterdir()} == {
        path.name,
        theirs.name,
        alive.name,
        elsewhere.name,
    }
    os.utime(elsewhere, (1, 1))
    remove_leftovers(tmp_path)
    assert not elsewhere.exists()


def test_a_resumed_run_has_no_leftovers(stopped: RunFolder) -> None:
    for folder in (stopped.path, stopped.checkpoint("last").parent, stopped.evals):
        left = folder / "last.4242.tmp"
        left.write_text("x")
        os.utime(left, (1, 1))
    resume_run(stopped.path)
    assert not list(stopped.path.rglob("*.tmp"))
