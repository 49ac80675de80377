"""Ctrl-C while nothing has begun yet."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """In this block Ctrl-C ends the process at once.

    Importing torch takes seconds, and as an exception Ctrl-C gets lost in there: libraries that
    look for an optional package take it for a sign that the package is broken, and go on without.
    """
    ours = threading.current_thread() is threading.main_thread()
    if (
        not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):  # somebody has other plans
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
