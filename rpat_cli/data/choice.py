"""Which of the test images are measured: a stratified choice, the first ones, or those of a list,
so that figures published for a subset can be checked."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import torch
from torch import Tensor

from rpat_cli.data.images import printable
from rpat_cli.data.splits import limited_choice
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.records.regular import read_regular

FIRST = "first:"


@dataclass(frozen=True)
class First:
    """The first images of the test set."""

    count: int

    def __str__(self) -> str:
        return f"{FIRST}{self.count}"


@dataclass(frozen=True)
class Listed:
    """The images of a list: numbers in the test set, from 0, or names of files. `source` is where
    the list is from."""

    names: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        digest = hashlib.sha256("\n".join(self.names).encode(errors="surrogateescape")).hexdigest()
        return f"{self.source} ({len(self.names)} images, {digest[:12]})"


Limit: TypeAlias = int | First | Listed
"""A number is a stratified choice of so many images."""


def parse_limit(limit: int | str | None) -> int | First | None:
    """`100` or `"first:100"`. Raises `ConfigError`."""
    if limit is None:
        return None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return limit
    number = limit.removeprefix(FIRST) if isinstance(limit, str) else ""
    if number != limit and number.isascii() and number.isdigit() and int(number[:18]):
        return First(int(number[:18]))
    message = f"{limit!r} must be a whole number, at least 1, or {FIRST}NUMBER."
    hint = f"Examples: 1000 (each class by its share), {FIRST}1000 (the first ones)."
    raise ConfigError(Problem("limit", message, "", hint))


def read_list(path: Path, flag: str = "--images") -> Listed:
    """A text file with one image a line; empty lines and those that begin with # are skipped.

    Raises `ConfigError` for a file that cannot be read or has no image in it.
    """
    try:
        # File names need not be UTF-8.
        text = read_regular(path).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        message = f"{printable(path)} cannot be read: {error.strerror}."
        raise ConfigError(Problem("", message, flag)) from None
    return listed((line.strip() for line in text.splitlines()), printable(path.name), flag)


def listed(names: Iterable[object], source: str, flag: str = "--images") -> Listed:
    """A list of numbers or names. Raises `ConfigError` if it is empty or names one twice."""
    kept = tuple(str(name) for name in names if str(name) and not str(name).startswith("#"))
    twice = next((name for name in kept if kept.count(name) > 1), None) if _repeats(kept) else None
    if not kept or twice is not None:
        message = f"{source} names no image."
        if twice is not None:
            message = f"{source} names {printable(twice)} more than once."
        hint = "One image a line: its number in the test set, from 0, or its file's name."
        raise ConfigError(Problem("", message, flag, hint))
    return Listed(kept, source)


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def chosen_by(
    limit: int | str | None, images: str | Path | Iterable[object] | None
) -> Limit | None:
    """The choice of a command line or a call: a limit or a list. Raises `ConfigError`."""
    if images is None:
        return parse_limit(limit)
    if limit is not None:
        message = "cannot be combined with --limit: each of them chooses the images."
        raise ConfigError(Problem("", message, "--images", "Leave one of them out."))
    if isinstance(images, str | Path):
        return read_list(Path(images))
    return listed(images, "images")


def images_of(limit: Limit | None, total: int) -> int:
    """How many of `total` images are chosen."""
    if limit is None:
        return total
    if isinstance(limit, Listed):
        return len(limit.names)
    return min(total, limit.count if isinstance(limit, First) else limit)


def recorded(limit: Limit | None) -> int | str | None:
    """As records and identities keep it."""
    return limit if limit is None or isinstance(limit, int) else str(limit)


def choose(limit: Limit | None, labels: Tensor, files: Sequence[str] | None = None) -> Tensor:
    """Ascending indices of the chosen images. `labels` (N,) are those of all; `files` their names,
    below the data root, where they are files.

    Raises `DataError` for a list that does not belong to these images.
    """
    if limit is None:
        return torch.arange(len(labels))
    if isinstance(limit, First):
        return torch.arange(min(limit.count, len(labels)))
    if isinstance(limit, Listed):
        return _of_list(limit, len(labels), files)
    return limited_choice(labels, limit)


def _of_list(limit: Listed, total: int, files: Sequence[str] | None) -> Tensor:
    if all(name.isascii() and name.isdigit() for name in limit.names):
        known = {str(index): index for index in range(total)}
        what = f"the test set has {total} images, numbered from 0"
        names = [str(int(name)) if len(name) < 20 else name for name in limit.names]
    elif files is None:
        raise DataError(
            f"{limit.source} names files, but this data set's images are no files of their own. "
            "Give their numbers in the test set, from 0."
        )
    else:
        known, names = _by_name(files), list(limit.names)
        what = "no such file, or several, among the test images"
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{limit.source}: {len(missing)} of {len(names)} images are not in the test set, "
            f"{printable(missing[0])} for example: {what}."
        )
    chosen = [known[name] for name in names]
    if _repeats(list(map(str, chosen))):
        raise DataError(f"{limit.source} names an image twice, in different ways.")
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def _by_name(files: Sequence[str]) -> dict[str, int]:
    """Every file by its path below the data root, below any folder on that path, and by its name
    alone, as far as these are of one file only."""
    found: dict[str, int] = {}
    several = set()
    for index, file in enumerate(files):
        parts = PurePosixPath(file).parts
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if found.setdefault(name, index) != index:
                several.add(name)
    return {name: index for name, index in found.items() if name not in several}
