"""Memory that was freed, given back to the system.

glibc keeps it for what comes next. But the small results of a chunk end up in the gaps between the
large tensors of an attack, the next large ones no longer fit there, and a process grows with every
chunk: by 1.3 GB over 20,000 images of 64 pixels.
"""

import ctypes
import sys
import time
from collections.abc import Callable

PAUSE = 0.25
"""Seconds between two times: what an attack frees in between is little, and looking through it
takes some milliseconds."""


def _trim() -> Callable[[int], object] | None:
    """glibc's function; None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_malloc_trim = _trim()
_last = 0.0


def give_back() -> None:
    """Do so, unless it was done just before."""
    global _last
    now = time.monotonic()
    if _malloc_trim is not None and now - _last >= PAUSE:
        _malloc_trim(0)
        _last = time.monotonic()
