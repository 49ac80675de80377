"""A lock that one process at a time can hold.

Standard library only: the job of a cluster imports this before it starts a trial.
"""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing is ever locked there
    fcntl = None  # type: ignore[assignment]


def locked(file: IO[Any]) -> bool:
    """Lock an open file; False if another process has it locked.

    Child processes that inherit the file share the lock. It is released when the last of them has
    ended, in whatever way. On platforms and file systems without locks the answer is always True.
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
