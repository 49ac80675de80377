from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.errors import CheckpointError, RunFolderError
from rpat_cli.records import checkpoint as module
from rpat_cli.records.checkpoint import (
    checksum,
    load_checkpoint,
    load_newest,
    previous,
    save_checkpoint,
)


def content(value: float = 1.0) -> dict[str, Any]:
    return {
        "model": {"w": torch.full((3,), value), "n": torch.tensor(2)},
        "epoch": 3,
        "name": "x",
        "list": [1, 2.5, None],
    }


def test_what_is_saved_comes_back_and_needs_no_rpat(tmp_path: Path) -> None:
    for value in (2.0, 1.0):
        save_checkpoint(tmp_path / "last.pt", content(value))
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert loaded["list"] == [1, 2.5, None]
    assert torch.equal(loaded["model"]["w"], torch.ones(3))
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, content())
    whole = torch.load(path, weights_only=True)
    whole["model"]["w"][1] += 1e-6
    torch.save(whole, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_the_checksum_sees_values_shapes_types_and_names() -> None:
    variants: list[Any] = [
        {"a": 1},
        {"b": 1},
        {"a": 1.0},
        {"a": "1"},
        {"a": [1]},
        {"a": torch.tensor([1])},
    ]
    variants += [
        {"a": torch.tensor([1.0])},
        {"a": torch.tensor([[1.0]])},
        {"a": torch.tensor([1.0]).bfloat16()},
    ]
    assert len({checksum(variant) for variant in variants}) == len(variants)
    assert checksum({"a": 1, "b": 2}) == checksum({"b": 2, "a": 1})


def test_the_previous_checkpoint_is_kept_and_steps_in(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(1), keep_previous=True)
    save_checkpoint(path, content(2), keep_previous=True)
    assert load_newest(path)[0]["model"]["w"][0] == 2
    assert load_newest(path)[1] == ""
    path.write_bytes(path.read_bytes()[:200])
    loaded, remark = load_newest(path)
    assert loaded["model"]["w"][0] == 1
    assert "last.prev.pt" in remark
    previous(path).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_newest(path)
    assert "damaged" in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice would not help, and could harm


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(RunFolderError, match="No space left"):
        save_checkpoint(path, content(2))
    monkeypatch.undo()
    assert load_checkpoint(path)["model"]["w"][0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "last.pt", content())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no checkpoint"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "damaged"),
        (lambda path: torch.save({"w": torch.ones(1)}, path), "not a checkpoint of rpat"),
        (lambda path: torch.save({"format": 99}, path), "Please upgrade"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.pt")
