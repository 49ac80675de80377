"""Is this a file that can be read to its end? Devices and pipes have none, and a pipe that nobody
writes to is waited for without end."""

import errno
import os
import stat
from pathlib import Path
from typing import IO

NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # Windows does not have it
BINARY = getattr(os, "O_BINARY", 0)  # only Windows has it

KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def irregular(path: Path) -> str:
    """What stands at `path` instead of a file: "a device", "a folder" ...; "" for a file, and where
    there is nothing or nothing can be seen."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return ""
    return KINDS.get(stat.S_IFMT(mode), "")


def open_regular(path: Path, buffering: int = -1) -> IO[bytes]:
    """A file, open for reading.

    Raises `OSError`, whose `strerror` says what is wrong, also for a name that no file can have and
    for what is no file: a pipe is not waited for.
    """
    try:
        number = os.open(path, os.O_RDONLY | NO_WAITING | BINARY)
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    if what := KINDS.get(stat.S_IFMT(os.fstat(number).st_mode), ""):
        os.close(number)
        raise OSError(errno.EINVAL, f"it is {what}", str(path))
    return open(number, "rb", buffering)  # noqa: PTH123  (a number, closed by the caller)


def read_regular(path: Path, at_most: int = -1) -> bytes:
    """The content of a file, or its first `at_most` bytes. Raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(at_most)
