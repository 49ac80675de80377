"""Paths that people wrote, and writing into run folders: files that appear complete or not at all,
names that are still free, and nothing that leads elsewhere.

A run folder may come from somebody else. A link in it could send what is written to any file of the
user's, so none is followed: files are replaced, never written through, and folders that are links
are refused. Temporary files are made exclusively, under names that nobody can prepare.
"""

import errno
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from rpat_cli.errors import ConfigError, Problem, RunFolderError, shortened
from rpat_cli.records.regular import BINARY, NO_WAITING

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows does not have it

TEMPORARY = re.compile(r".+\.(?P<host>[^.]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp|.+\.\d+\.tmp")
"""The names of `_temporary_name`, and those of earlier versions, which have no host."""

ABANDONED = 3600.0
"""Seconds after which a temporary file is taken for a leftover, whoever made it: writing takes
seconds."""


IMPOSSIBLE = {
    errno.ENAMETOOLONG: "is longer than the name of a file can be",
    errno.ELOOP: "is a link that leads back to itself",
}


def user_path(text: str | Path, key: str = "", source: str = "") -> Path:
    """The path that somebody wrote, with `~` expanded. Where there is no such home it stays as it
    is, and is not found.

    `key` and `source` say where it was written. Raises `ConfigError` for what no file can be
    called; most things that are done with such a path raise errors of half a dozen kinds.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        path = Path(text)
    if reason := _impossible(path):
        message = f"{shortened(str(text))!r} {reason}."
        raise ConfigError(Problem(key, message, source, "Use another path."))
    return path


def new_file(text: str | Path, key: str) -> Path:
    """The path of a file that is to be written, as in `user_path`. Raises `ConfigError` for that of
    a folder, too."""
    path = user_path(text, key)
    if path.is_dir():
        raise ConfigError(Problem(key, f"{path} is a folder, and not a file.", "", "Name a file."))
    return path


def _impossible(path: Path) -> str:
    """Why nothing can be at this path, as the rest of a sentence; "" if something could be."""
    try:
        path.stat()
    except OSError as error:
        return IMPOSSIBLE.get(error.errno or 0, "")
    except ValueError:
        return "holds a character that no name of a file can hold"
    return ""


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
    try:
        with replacing(path) as file:
            # The name of a file may hold bytes that are no text in UTF-8.
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def write_new(path: Path, text: str) -> Path:
    """Write to `path`, or to `NAME-2`, `NAME-3` ... if it is taken: nothing is ever overwritten.

    Returns where the text is now. Raises `RunFolderError` if it cannot be written.
    """
    try:
        with _temporary(path) as (temporary, file):
            file.write(text.encode(errors="backslashreplace"))
            through_to_disk(file)
            return _named(temporary, path)
    except OSError as error:
        raise RunFolderError(f"cannot write to {path}: {error.strerror}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which replaces the one at `path` when the block ends well.

    It is on the disk by then: otherwise a power cut could leave a name without content. Raises
    `OSError` if that fails, and `RunFolderError` if the folder is a link.
    """
    with _temporary(path) as (temporary, file):
        yield file
        through_to_disk(file)
        # Renaming replaces a file, or a link, in one step: readers see the old content or the new.
        temporary.replace(path)


@contextmanager
def creating(path: Path) -> Iterator[tuple[BinaryIO, list[Path]]]:
    """A file to write into, which gets the name `path`, or the first of `NAME-2`, ... that is free,
    when the block ends well; that name is then in the list.

    Raises `OSError` if that fails.
    """
    place: list[Path] = []
    with _temporary(path) as (temporary, file):
        yield file, place
        through_to_disk(file)
        place.append(_named(temporary, path))


@contextmanager
def appending(path: Path) -> Iterator[IO[str]]:
    """A text file to append to, made if it is missing. Raises `RunFolderError` if that fails, or if
    it is a link or no file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINKS | NO_WAITING
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        reason = "it is a link, and is not followed" if path.is_symlink() else error.strerror
        raise RunFolderError(f"cannot write {path}: {reason}.") from error
    # A message may name a file whose name is no text.
    with open(number, "a", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise RunFolderError(f"cannot write {path}: it is not a regular file.")
        yield file


def append_durably(path: Path, text: str) -> None:
    """Append text, through to the disk. Raises `RunFolderError` if that fails."""
    with appending(path) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def refuse_link(folder: Path) -> None:
    """Raises `RunFolderError` if a folder within a run leads elsewhere."""
    if folder.is_symlink():
        raise RunFolderError(
            f"{folder} is a link, and rpat does not write through links within a run folder. "
            "Replace it by a folder; the run folder itself may be a link."
        )


def free_name(path: Path) -> Path:
    """`path`, or the first of `NAME-2`, `NAME-3` ... that does not exist.

    A symbolic link that leads nowhere counts as taken: writing to it would write elsewhere.
    """
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")
    return candidate


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for path in folder.glob("*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and _is_abandoned(path, match["host"], match["process"]):
            with suppress(OSError):
                path.unlink()


def _is_abandoned(path: Path, host: str | None, process: str | None) -> bool:
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime > ABANDONED:
            return True
    # Another machine that shares the folder may be writing it: nothing is known of its processes.
    return host == _host() and process is not None and not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere asking would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())[:32]


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, and its name; removed afterwards if it still has that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    name = f"{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    temporary = path.with_name(name)
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS | BINARY, 0o666)
    try:
        with open(number, "wb") as file:  # noqa: PTH123  (a number, not a path)
            yield temporary, file
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def through_to_disk(file: BinaryIO) -> None:
    """End writing: when this returns, a power cut takes nothing of it."""
    if not file.closed:
        file.flush()
        os.fsync(file.fileno())
        file.close()  # Windows renames no file that is open


def _named(temporary: Path, path: Path) -> Path:
    """Give a finished file the first free name; no other process can take it in the meantime."""
    while True:
        candidate = free_name(path)
        # Another process may have taken the name since: then look for the next free one.
        with suppress(FileExistsError):
            try:
                os.link(temporary, candidate)
            except FileExistsError:
                raise
            except (OSError, NotImplementedError):  # a file system without hard links
                candidate.touch(exist_ok=False)
                temporary.replace(candidate)
            return candidate
