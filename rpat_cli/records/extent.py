"""What a file of weights unfolds to: a small file must not take the machine.

A checkpoint of some hundred bytes can hold a tensor of a terabyte, of which it stores one number;
a list of lists of lists, each many times the one before; or compressed zeros.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rpat_cli.errors import CheckpointError
from rpat_cli.records.regular import irregular

MOST_VALUES = 1_000_000
"""Containers, tensors and plain values of a checkpoint: the largest networks have some thousand."""

DEEPEST = 50

MOST_BITS = 4096
"""Of a whole number: the state of a random generator has at most so many."""

SPARE = 2**24
"""Bytes that are too few to be a danger, however few are stored."""

FOLD = 8
"""How many times their storage tensors may take: some share one."""


def check_packed(path: Path) -> None:
    """Raise `CheckpointError` for what is no file, which might never end, and for an archive whose
    parts unpack to far more than the file's size."""
    if what := irregular(path):
        raise CheckpointError(f"{path} is {what}, not a checkpoint.")
    try:
        unpacked, size = _unpacked_size(path), path.stat().st_size
    except Exception:  # it is not there, or damaged: whoever reads it says so
        return
    if unpacked > FOLD * size + SPARE:
        raise _too_large(path, f"unpacks to {_gigabytes(unpacked)}")


def _unpacked_size(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(part.file_size for part in archive.infolist())


def check_extent(content: Any, path: Path) -> None:
    """Raise `CheckpointError` for what takes far more memory than the file, or refers to itself."""
    try:
        numbers = _bytes(content, 0, [0])
    except ValueError as error:
        raise _too_large(path, str(error)) from None
    if numbers > FOLD * path.stat().st_size + SPARE:
        raise _too_large(path, f"holds tensors of {_gigabytes(numbers)}, which it does not store")


def _too_large(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} {what}: it is damaged, or made to fill the memory.")


def _bytes(content: Any, depth: int, seen: list[int]) -> int:
    """Of all tensors in nested containers. `seen` counts the values so far."""
    seen[0] += 1
    if seen[0] > MOST_VALUES:
        raise ValueError(f"holds more than {MOST_VALUES:,} values")
    if depth > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(_bytes(value, depth + 1, seen) for value in content.values())
    if isinstance(content, list | tuple | set):
        return sum(_bytes(value, depth + 1, seen) for value in content)
    if isinstance(content, int) and content.bit_length() > MOST_BITS:
        raise ValueError(f"holds a whole number of {content.bit_length():,} bits")
    return 0


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count < 2**60 else "more bytes than any machine has"
