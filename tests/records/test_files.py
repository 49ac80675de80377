"""Files are whole or not there, and never overwritten."""

from pathlib import Path

import pytest

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import free_name, write_new, write_whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    write_whole(path, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rpat_cli.records.files.os.fsync", full)
    with pytest.raises(RunFolderError, match=r"report\.json: No space left"):
        write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"


def test_a_folder_is_made_where_it_is_missing(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "file.txt", "text")
    assert (tmp_path / "a" / "b" / "file.txt").read_text() == "text"


def test_a_new_file_takes_the_first_free_name(tmp_path: Path) -> None:
    (tmp_path / "a-2.json").symlink_to("gone")  # leads nowhere, but writing to it would write there
    assert [write_new(tmp_path / "a.json", text).name for text in "xy"] == ["a.json", "a-3.json"]
    assert (tmp_path / "a-3.json").read_text() == "y"
    assert free_name(tmp_path / "a.json").name == "a-4.json"
    assert free_name(tmp_path / "b.json").name == "b.json"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write to"):
        write_new(tmp_path / "file" / "a.json", "x")
