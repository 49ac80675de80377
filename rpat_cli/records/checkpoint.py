"""Checkpoints: plain tensors and builtins in one file, written whole or not at all, with a checksum
inside.

`torch.load(path, weights_only=True)` reads them without this package.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rpat_cli.errors import CheckpointError, RunFolderError

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any], *, keep_previous: bool = False) -> None:
    """Write `content` (nested dicts and lists of tensors and builtins) to `path`.

    The file appears under its name only when it is complete; with `keep_previous` the one before
    stays beside it as `NAME.prev.pt`. Raises `RunFolderError` when the disk is full or the folder
    cannot be written: the file that was there is untouched then.
    """
    whole = {"format": FORMAT, **content}
    whole["checksum"] = checksum(whole)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            path.replace(previous(path))
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(f"cannot write the checkpoint {path}: {error}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint to the CPU.

    Raises `CheckpointError` if it is missing, unreadable, damaged, or written by a newer format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.pt"))[:8])
        raise CheckpointError(
            f"there is no checkpoint {path}.{f' Beside it: {there}.' if there else ''}"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {error.strerror or error}."
        ) from error
    # torch raises a dozen kinds here, some with the advice to load without its safeguard
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or a damaged one ({type(error).__name__})."
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of rpat.")
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}; this rpat reads up to {FORMAT}: please "
            "upgrade."
        )
    if content.pop("checksum", None) != checksum(content):
        raise CheckpointError(f"{path} is damaged: its checksum does not match.")
    return content


def load_newest(path: Path) -> tuple[dict[str, Any], str]:
    """The checkpoint at `path`, or the kept previous one if that is missing or damaged, and a
    remark on which."""
    try:
        return load_checkpoint(path), ""
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        return load_checkpoint(
            previous(path)
        ), f"{error} Using the previous one, {previous(path).name}."


def previous(path: Path) -> Path:
    return path.with_suffix(".prev.pt")


def checksum(content: Any) -> str:
    """SHA-256 over everything in a nest of dicts, lists, tensors and builtins (the order of keys
    does not matter)."""
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Any) -> Iterator[bytes]:
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
