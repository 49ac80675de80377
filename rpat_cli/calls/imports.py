"""Imports that a call makes when it is first needed. Only modules of Python itself are imported
here, for `import rpat` to be quick."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unnoticed() -> Iterator[None]:
    """Around imports: Python's generator and the warning filters are the caller's again afterwards.

    Rich draws from that generator when it is imported, and libraries of torch add filters.
    """
    state = random.getstate()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(state)
