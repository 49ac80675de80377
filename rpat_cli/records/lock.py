"""One process at a time. Standard library only: a cluster's job imports it before it starts a
trial."""

from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


def locked(file: IO[str]) -> bool:
    """Lock an open file, unless another process holds it: False then.

    Whoever inherits the file keeps the lock; it ends with the last of them, however they end. Where
    a file system or a platform has no locks, everybody gets one.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks
        return True
    return True
