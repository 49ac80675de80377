"""The number of threads of a training on a CPU: each rank has its share of the cores, and a resumed
run what it began with.

Sums are rounded by how they are divided among threads: with another number the weights would differ
in their last bits, and after some epochs in more.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rpat_cli.text import counted


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
            f"note: the run was trained with {counted(before, 'thread')}, and this process may use "
            f"{counted(cores, 'core')}: it goes on with {now}, so its weights will not be those of "
            "an uninterrupted run to the last bit"
        )
        yield
        return
    say(
        f"note: going on with {counted(before, 'thread')} as the run began, not {now}, "
        "since their number changes the last bits of the weights"
    )
    torch.set_num_threads(before)
    try:
        yield
    finally:
        torch.set_num_threads(now)


def take_share_of_cores() -> None:
    """Compute with this rank's share of the cores, unless the user has set the number of threads.

    torchrun sets OMP_NUM_THREADS to 1, which leaves most cores idle.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if os.environ.get("OMP_NUM_THREADS") is None or not _threads_set_by_user():
        torch.set_num_threads(share_of_cores(local))


def share_of_cores(ranks: int) -> int:
    """The threads of each of so many processes on this machine."""
    return max(1, _cores() // ranks)


def _threads_set_by_user() -> bool:
    """Whether OMP_NUM_THREADS was there before the launcher: this file shows the environment that a
    process was started with. Where there is none, it counts as the user's."""
    try:
        before = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return True
    return any(each.startswith(b"OMP_NUM_THREADS=") for each in before.split(b"\0"))


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
