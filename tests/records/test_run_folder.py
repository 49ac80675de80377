"""How runs are found, and that one process at a time trains in a folder."""

import os
from pathlib import Path

import pytest

from rpat_cli.errors import RunFolderError
from rpat_cli.records.run_folder import RunFolder, newest_run, open_run


def make(path: Path, when: int = 1) -> Path:
    path.mkdir(parents=True)
    recipe = path / "recipe.yaml"
    recipe.touch()
    os.utime(recipe, (when, when))
    return path


def test_the_newest_run_is_the_one_begun_last(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run under"):
        newest_run(tmp_path / "runs")
    for name, when in (("a", 1), ("b", 3), ("c", 2)):
        make(tmp_path / name, when)
    (tmp_path / "external").mkdir()  # no recipe: not a run
    assert newest_run(tmp_path).path.name == "b"


def test_a_folder_that_is_no_run_is_an_error_that_names_near_ones(tmp_path: Path) -> None:
    run = make(tmp_path / "runs" / "trades")
    assert open_run(run) == RunFolder(run)
    with pytest.raises(RunFolderError, match="does not exist.*trades"):
        open_run(tmp_path / "runs" / "trade")
    with pytest.raises(
        RunFolderError, match="not a run folder.*Name one of the runs in it: trades"
    ):
        open_run(tmp_path / "runs")


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(make(tmp_path / "run"))
    with (
        folder.training(),
        pytest.raises(RunFolderError, match="another process is training"),
        folder.training(),
    ):
        pass
    with folder.training():  # free again
        pass


def test_copying_runs_does_not_change_which_is_the_newest(tmp_path: Path) -> None:
    """A copy, an archive or a checkout may give all files the times of now, in any order."""
    for name, when, day in (("a", 30, 1), ("b", 10, 3), ("c", 20, 2), ("torn", 40, None)):
        run = make(tmp_path / name, when)
        (run / "log.txt").write_text(f"2026-11-0{day} 10:00:00  method  pgd\n" if day else "2026-")
    assert newest_run(tmp_path).path.name == "b"
