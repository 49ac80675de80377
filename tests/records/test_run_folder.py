"""The folder of a run: names that two runs never share, files that are whole, what a number depends
on."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import load_recipe

from rpat_cli.errors import RunFolderError
from rpat_cli.records import run_folder
from rpat_cli.records.run_folder import create_run, environment, run_name, write_whole


def test_two_runs_that_begin_at_once_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, free = load_recipe(), run_folder._free
    first = create_run(recipe)
    looked = iter([first.path])  # where the other had looked before the first one was made
    monkeypatch.setattr(run_folder, "_free", lambda path: next(looked, None) or free(path))
    second = create_run(recipe)
    assert second.path.name == f"{first.path.name}-2"
    assert all(
        (folder.path / "checkpoints").is_dir() and folder.evals.is_dir()
        for folder in (first, second)
    )


def test_a_name_that_leads_nowhere_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe()
    (tmp_path / "runs").mkdir()
    taken = run_name(recipe)
    (tmp_path / "runs" / taken).symlink_to("gone")
    assert create_run(recipe).path.name == f"{taken}-2"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot make the run folder .*--out"):
        create_run(load_recipe(), tmp_path / "file" / "run")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    write_whole(path, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFolderError, match=r"report\.json: No space left"):
        write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_the_one_that_a_process_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder._commit.cache_clear()
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], check=True)
    try:
        begun = environment()["commit"]
        assert len(begun) == 40
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "two"], check=True)
        assert environment()["commit"] == begun
    finally:
        run_folder._commit.cache_clear()
