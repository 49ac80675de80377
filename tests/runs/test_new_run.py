"""Names of runs that two runs never share, and what a result depends on besides the recipe."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import torch
from helpers import load_recipe

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import free_name
from rpat_cli.runs import environment as environment_module
from rpat_cli.runs import new_run
from rpat_cli.runs.environment import environment
from rpat_cli.runs.new_run import create_run, run_name


def test_two_runs_that_begin_at_once_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe()
    first = create_run(recipe)
    looked = iter([first.path])  # where the other had looked before the first one was made
    monkeypatch.setattr(new_run, "free_name", lambda path: next(looked, None) or free_name(path))
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


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot make the run folder .*--out"):
        create_run(load_recipe(), tmp_path / "file" / "run")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_rpat_and_the_one_that_a_process_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(folder: Path, *command: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def asked_anew() -> str | None:
        environment_module._commit.cache_clear()
        commit = environment()["commit"]
        assert commit is None or isinstance(commit, str)
        return commit

    package, work = tmp_path / "rpat" / "package", tmp_path / "work"
    package.mkdir(parents=True)
    work.mkdir()
    for folder in (package.parent, work):
        git(folder, "init", "-q")
        git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    monkeypatch.chdir(work)  # the caller's own repository is none of our business
    monkeypatch.setenv("GIT_DIR", str(work / ".git"))  # as in a hook of it
    monkeypatch.setattr(environment_module, "PACKAGE", package)
    try:
        assert asked_anew() is None  # git does not track us there: an installed copy
        monkeypatch.delenv("GIT_DIR")
        (package / "version.py").write_text("1")
        git(package.parent, "add", ".")
        git(package.parent, "commit", "-q", "-m", "two")
        monkeypatch.setenv("GIT_DIR", str(work / ".git"))
        begun = asked_anew()
        monkeypatch.delenv("GIT_DIR")
        assert begun == git(package.parent, "rev-parse", "HEAD")
        git(package.parent, "commit", "-q", "--allow-empty", "-m", "three")
        assert environment()["commit"] == begun
        (package / "version.py").write_text("2")
        assert asked_anew() == git(package.parent, "rev-parse", "HEAD") + "-dirty"
    finally:
        environment_module._commit.cache_clear()


def test_every_record_names_machine_threads_and_time() -> None:
    record = environment()
    assert record["threads"] == torch.get_num_threads()
    assert record["cpu"]
    assert datetime.fromisoformat(record["time"]).tzinfo is not None
