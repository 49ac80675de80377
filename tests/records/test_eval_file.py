"""The files in `evals/`: read one and all, written under names of their own, and added to."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rpat_cli.errors import RunFolderError
from rpat_cli.records import files
from rpat_cli.records.eval_file import DamagedEvalError, add, newest, read, read_all, write_new
from rpat_cli.records.files import free_name


def a_record(**more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "key": "a1b2",
        "created": "2026-11-22T12:00:00+00:00",
        "environment": {"torch": "2.9.1"},
        "device": "cpu",
        "checkpoint": "best",
        "epoch": 3,
        "data": {"name": "mnist", "fingerprint": "ab", "class_names": ["zero", "one"]},
        "limit": None,
        "results": [],
        **more,
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_new(tmp_path / "evals", "best_Linf", a_record(limit=20))
    assert written.path == tmp_path / "evals" / "best_Linf.json"
    file = read(written.path)
    assert file == written
    assert (file.created, file.checkpoint, file.epoch) == ("2026-11-22T12:00:00+00:00", "best", 3)
    assert (file.data, file.fingerprint, file.class_names) == ("mnist", "ab", ("zero", "one"))
    assert (file.environment, file.device) == ({"torch": "2.9.1"}, "cpu")
    assert (file.key, file.limit, file.pending) == ("a1b2", 20, ())
    assert not file.has_diagnostic("perception")


def test_a_file_of_an_early_version_has_less_in_it(tmp_path: Path) -> None:
    record = a_record(data={"name": "mnist", "fingerprint": "ab"})
    del record["key"], record["limit"]
    file = read(write_new(tmp_path, "old", record).path)
    assert (file.key, file.limit, file.class_names) == (None, None, ())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    written = [write_new(tmp_path, "best", a_record(epoch=epoch)) for epoch in (1, 2, 3)]
    assert [file.path.name for file in written] == ["best.json", "best-2.json", "best-3.json"]
    assert [read(file.path).epoch for file in written] == [1, 2, 3]


def test_a_name_taken_at_the_last_moment_is_left_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_new(tmp_path, "best", a_record(epoch=1))
    looked = iter([first.path])  # where this process had looked before the other one wrote
    monkeypatch.setattr(files, "free_name", lambda path: next(looked, None) or free_name(path))
    assert write_new(tmp_path, "best", a_record(epoch=2)).path.name == "best-2.json"
    assert read(first.path).epoch == 1


def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rpat_cli.records.files.os.fsync", full)
    with pytest.raises(RunFolderError, match=r"best\.json: No space left"):
        write_new(tmp_path, "best", a_record())
    assert not list(tmp_path.iterdir())


def test_diagnostics_are_added_one_by_one(tmp_path: Path) -> None:
    path = write_new(tmp_path, "best", a_record()).path
    assert add(path, {}, ["perception", "eps_curve"]).pending == ("perception", "eps_curve")
    assert read(path).pending == ("perception", "eps_curve")
    # The key that other versions read and write.
    assert json.loads(path.read_text())["closer_looks_left"] == ["perception", "eps_curve"]
    add(path, {"perception": {"n": 10}}, ["eps_curve"])
    file = read(path)
    assert (file.diagnostic("perception"), file.pending) == ({"n": 10}, ("eps_curve",))
    assert not file.has_diagnostic("eps_curve")
    file = add(path, {"eps_curve": {"n": 20}}, [])
    assert file == read(path)
    assert json.loads(path.read_text()) == a_record(perception={"n": 10}, eps_curve={"n": 20})


def test_all_are_read_from_the_oldest_to_the_newest(tmp_path: Path) -> None:
    for stem, created in (
        ("a", "2026-11-22T13:00:00+00:00"),
        ("b", "2026-11-22T13:30:00+02:00"),  # earlier: half past eleven in UTC
        ("c", "2026-11-22T12:00:00+00:00"),
    ):
        write_new(tmp_path, stem, a_record(created=created))
    assert [file.path.stem for file in read_all(tmp_path)[0]] == ["b", "c", "a"]
    add(
        tmp_path / "b.json", {"perception": {}}, []
    )  # changes the file's time, not the evaluation's
    assert newest(tmp_path).path.stem == "a"  # type: ignore[union-attr]


def test_files_of_one_second_are_told_apart_by_the_file_system(tmp_path: Path) -> None:
    first, second = (write_new(tmp_path, stem, a_record()).path for stem in ("z", "a"))
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    assert [file.path.stem for file in read_all(tmp_path)[0]] == ["z", "a"]


def test_a_folder_without_evaluations(tmp_path: Path) -> None:
    assert read_all(tmp_path / "evals") == ([], [])
    assert newest(tmp_path / "evals") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is not JSON"),
        (b'{"created": ', "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"{}", "created is missing"),
        (json.dumps(a_record(created="yesterday")).encode(), "created is not a date: 'yesterday'"),
        (json.dumps(a_record(created=3)).encode(), "created is missing or not of type str"),
        (json.dumps(a_record(results=None)).encode(), "results is missing or not of type list"),
        (json.dumps(a_record(data={"name": "mnist"})).encode(), "data.fingerprint is missing"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, text: bytes, problem: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text)
    with pytest.raises(DamagedEvalError, match=r"broken\.json is not an evaluation") as caught:
        read(path)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    whole = write_new(tmp_path, "whole", a_record())
    found, (remark,) = read_all(tmp_path)
    assert found == [whole]
    assert remark.startswith("evals/broken.json is damaged and was left out (")
    assert problem in remark
    with pytest.raises(DamagedEvalError):
        add(path, {"perception": {}}, [])
    assert path.read_bytes() == text


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no evaluation .*absent\.json"):
        read(tmp_path / "absent.json")
