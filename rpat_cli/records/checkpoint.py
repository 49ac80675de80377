"""Checkpoints: tensors and builtins in one file, written whole or not at all, with a checksum.

`torch.load(path, weights_only=True)` reads them without this package, and runs no code of theirs.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rpat_cli.errors import CheckpointError, RunFolderError
from rpat_cli.records.extent import check_extent, check_packed
from rpat_cli.records.file_kinds import DAMAGED, not_a_checkpoint
from rpat_cli.records.files import refuse_link, replacing, through_to_disk

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any], *, keep_previous: bool = False) -> None:
    """Write `content` (nested dicts and lists of tensors and builtins) to `path`.

    The file gets its name only when it is complete; with `keep_previous` the file that was there is
    kept as `NAME.prev.pt` unless it is damaged. Raises `RunFolderError` if the disk is full or the
    folder cannot be written: the file that was there is untouched then.
    """
    whole = {"format": FORMAT, **content}
    whole["checksum"] = checksum(whole)
    refuse_link(path.parent)
    try:
        with replacing(path) as file:
            torch.save(whole, file)
            through_to_disk(file)
            if keep_previous and _is_whole(path):
                path.replace(previous(path))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise RunFolderError(f"cannot write the checkpoint {path}: {error}") from error


def _is_whole(path: Path) -> bool:
    """Whether the checkpoint can be used: a damaged one must not replace the one before it."""
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def load_checkpoint(path: Path, needs: Collection[str] = ()) -> dict[str, Any]:
    """Read one checkpoint to the CPU.

    Raises `CheckpointError` if it is missing, unreadable or damaged, has a newer format, or lacks a
    key that it `needs`.
    """
    check_packed(path)
    if path.exists() and (wrong := not_a_checkpoint(path)):
        raise CheckpointError(f"{path} is {wrong.removeprefix('is ')}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        others = ", ".join(sorted(other.name for other in path.parent.glob("*.pt"))[:8])
        hint = f" The folder has: {others}." if others else ""
        raise CheckpointError(f"there is no checkpoint {path}.{hint}") from None
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {error.strerror or error}."
        ) from error
    # torch raises a dozen kinds of errors here. Their texts are not shown: some advise to load
    # without `weights_only`, which would run code from the file.
    except Exception as error:
        raise CheckpointError(f"{path} is {DAMAGED} ({type(error).__name__}).") from error
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of rpat.")
    _check_format(path, content["format"])
    check_extent(content, path)
    try:
        intact = content.pop("checksum", None) == checksum(content)
    except Exception as error:  # a sparse tensor, a mapping that holds itself
        raise CheckpointError(
            f"{path} is damaged: it holds what rpat does not write ({type(error).__name__})."
        ) from error
    if not intact:
        raise CheckpointError(f"{path} is damaged: its checksum does not match.")
    if missing := [key for key in needs if key not in content]:
        raise CheckpointError(
            f"{path} is damaged or of another version of rpat: it lacks {', '.join(missing)}."
        )
    return content


def _check_format(path: Path, given: Any) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise CheckpointError(f"{path} is damaged: its format is {str(given)[:40]!r}.")
    if given > FORMAT:
        raise CheckpointError(
            f"{path} has format {given}, and this version of rpat reads up to {FORMAT}. "
            "Please upgrade rpat."
        )


def load_newest(path: Path, needs: Collection[str] = ()) -> tuple[dict[str, Any], str]:
    """The checkpoint at `path` and "", or the previous one and a remark that says so.

    Raises `CheckpointError` if the one at `path` cannot be used and there is no previous one.
    """
    try:
        return load_checkpoint(path, needs), ""
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        try:
            content = load_checkpoint(previous(path), needs)
        except CheckpointError as second:
            raise CheckpointError(
                f"{error} The previous one cannot be used either: {second}"
            ) from None
        return content, f"{error} Using the previous one, {previous(path).name}."


def is_saved(path: Path) -> bool:
    """Whether there is anything for `load_newest`."""
    return path.exists() or previous(path).exists()


def previous(path: Path) -> Path:
    """Where `save_checkpoint` keeps the checkpoint that was at `path` before."""
    return path.with_suffix(".prev.pt")


def checksum(content: Any) -> str:
    """SHA-256 (hex) of nested dicts, lists, tensors and builtins; the order of keys is ignored."""
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Any) -> Iterator[bytes]:
    """The content as bytes, every value with its type and size: no two contents give the same."""
    if isinstance(content, torch.Tensor):
        tensor = content.detach().cpu().contiguous()
        yield f"tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    elif isinstance(content, Mapping):
        yield f"dict {len(content)}".encode()
        for key in sorted(content, key=lambda key: (type(key).__name__, str(key))):
            yield f"key {key!r}".encode()
            yield from _pieces(content[key])
    elif isinstance(content, list | tuple):
        yield f"list {len(content)}".encode()
        for item in content:
            yield from _pieces(item)
    else:
        yield f"{type(content).__name__} {content!r}".encode()
