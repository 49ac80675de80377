"""Paths that people wrote, text files that appear complete or not at all, and names that are still
free."""

import os
from contextlib import suppress
from pathlib import Path

from rpat_cli.errors import RunFolderError


def user_path(text: str | Path) -> Path:
    """The path that somebody wrote, with `~` expanded. Where there is no such home it stays as it
    is, and is not found."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether there is such a file; `False` also for what no file can be called, such as a name of
    thousands of characters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all.

    Raises `RunFolderError` if it cannot be written; a file that was there is untouched then.
    """
    # Renaming replaces a file in one step: readers see the old text or the new one, never a part.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def write_new(path: Path, text: str) -> Path:
    """Write to `path`, or to `NAME-2`, `NAME-3` ... if it is taken: nothing is ever overwritten.

    Returns where the text is now. Raises `RunFolderError` if it cannot be written.
    """
    path = _reserve(path)
    try:
        write_whole(path, text)
    except RunFolderError:
        path.unlink(missing_ok=True)
        raise
    return path


def free_name(path: Path) -> Path:
    """`path`, or the first of `NAME-2`, `NAME-3` ... that does not exist.

    A symbolic link that leads nowhere counts as taken: writing to it would write elsewhere.
    """
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")
    return candidate


def _reserve(path: Path) -> Path:
    """An empty file under a free name, which no other process can take in the meantime."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            candidate = free_name(path)
            # Another process may have taken the name since: then look for the next free one.
            with suppress(FileExistsError):
                candidate.touch(exist_ok=False)
                return candidate
    except OSError as error:
        raise RunFolderError(f"cannot write to {path.parent}: {error.strerror}.") from error
