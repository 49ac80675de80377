"""The number of threads that a training on a CPU began with, kept when it is resumed.

Sums are rounded by how they are divided among threads: with another number the weights would differ
in their last bits, and after some epochs in more.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads_as_before(
    before: int | None, device: torch.device, say: Callable[[str], None]
) -> Iterator[None]:
    """In this block torch computes with the threads of the sessions `before`, where it can.

    A remark says so, or that the weights will not be the same. `None`: the number is not known.
    """
    now = torch.get_num_threads()
    if device.type != "cpu" or before in (None, now):
        yield
        return
    cores = _cores()
    if before > cores:
        say(
            f"note: the run was trained with {before} threads, and this process may use {cores} "
            f"core{'s' * (cores != 1)}: it goes on with {now}, so its weights will not be those of "
            "an uninterrupted run to the last bit"
        )
        yield
        return
    say(
        f"note: going on with {before} thread{'s' * (before != 1)} as the run began, not {now}, "
        "since their number changes the last bits of the weights"
    )
    torch.set_num_threads(before)
    try:
        yield
    finally:
        torch.set_num_threads(now)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
