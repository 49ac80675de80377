"""The C library's allocator, told to keep the memory that tensors leave."""

import os
import sys
from contextlib import suppress

PARAMETERS = {
    -3: 32 * 1024**2,  # M_MMAP_THRESHOLD: larger blocks are mapped one by one; the most allowed
    -1: 1024**3,  # M_TRIM_THRESHOLD: free memory at the end of the heap that is not given back
}
"""Of `mallopt(3)`: numbers as in glibc's malloc.h, and values in bytes."""

SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """In this process, freed memory is kept for the next tensors of the size.

    glibc gives blocks of some hundred kilobytes back to the system and asks for them again, page by
    page, at every operation: a tenth of a training step of a small network on color images, on a
    CPU. The most memory that is used, and every figure, stay the same. Nothing is done where the
    user has set these values, or the C library (of musl, macOS, Windows) has none. For programs of
    our own only: a library leaves the process to its host.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SET_BY_USER):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in PARAMETERS.items():
            mallopt(parameter, value)
