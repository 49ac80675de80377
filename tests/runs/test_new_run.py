"""Names of runs that two runs never share, and what a result depends on besides the recipe."""

import shutil
import subprocess
from pathlib import Path

import pytest
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
def test_the_commit_is_the_one_that_a_process_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment_module._commit.cache_clear()
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], check=True)
    try:
        begun = environment()["commit"]
        assert len(begun) == 40
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "two"], check=True)
        assert environment()["commit"] == begun
    finally:
        environment_module._commit.cache_clear()
