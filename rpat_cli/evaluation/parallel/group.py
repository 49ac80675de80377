"""The processes that torchrun started, on one machine or several, joined by torch.distributed.

Messages go through gloo: they are small and on the CPU, and it notices at once when a process is
gone. NCCL does not, and needs a GPU for each rank.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from rpat_cli.errors import LostRankError, RpatError

RENDEZVOUS_TIMEOUT = timedelta(minutes=3)
"""For the ranks to find each other: rank 0 may be slow to start, or may have been killed."""

MESSAGE_TIMEOUT = timedelta(hours=12)
"""For a network that fails in silence; a process that dies is noticed at once. Long, since one
chunk of an evaluation may take hours on a CPU."""

_FAILURE = "rpat/failure"
"""Under which key of the store a rank leaves the message of what ended it."""

_stores: list[Any] = []
"""The store through which this process has found the others."""


def join() -> None:
    """Join the others as the environment says (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, ...).

    Raises `LostRankError` if they do not find each other.
    """

    def meet() -> None:
        store, rank, size = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        # torchrun may keep the store when it starts its processes again: with the addresses of
        # those that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"rpat/{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=MESSAGE_TIMEOUT
        )
        _stores[:] = [store]

    interruptibly(meet)


def leave() -> None:
    """Nothing more will be sent or received."""
    _stores.clear()
    dist.destroy_process_group()


def own_gpu() -> int:
    """Which GPU of its machine this rank computes on. Raises `RpatError` if there is none."""
    import torch

    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local < count:
        return local
    if shares_gpus() and count:
        return local % count
    raise RpatError(
        f"rank {os.environ.get('RANK', '0')} should use GPU {local} of its machine, which has "
        f"{count}. Start no more processes on each machine than it has GPUs: torchrun "
        f"--nproc-per-node {max(count, 1)}"
    )


def shares_gpus() -> bool:
    """Whether several ranks may compute on one GPU, which NCCL cannot: to try things out."""
    return os.environ.get("RPAT_BACKEND") == "gloo"


def report_failure(message: str) -> None:
    """Leave word of why this rank is about to end, for rank 0 to say."""
    with suppress(Exception):  # whoever fails because the store is gone has nothing to report
        for store in _stores:
            store.set(_FAILURE, f"rank {dist.get_rank()}: {message}")


def interruptibly(call: Callable[..., Any], *args: Any) -> None:
    """Call a function of torch.distributed in a thread, and wait for it in Python: while it waits
    in C++, no signal handler would run.

    Raises `LostRankError` if it fails.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            call(*args)
        except Exception as error:  # of several classes, which all mean that a rank is lost
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise _lost(failures[0])


@contextmanager
def noticing_losses() -> Iterator[None]:
    """For messages so frequent that a thread for each would cost too much. Raises `LostRankError`
    if one fails in the block."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: Exception) -> LostRankError:
    for store in _stores:
        with suppress(Exception):  # the store is gone, too
            if store.check([_FAILURE]):
                return LostRankError(store.get(_FAILURE).decode())
    known = re.search(r"connection \w+ by peer|connection refused|timed out", str(error), re.I)
    reason = known.group().lower() if known else f"{type(error).__name__}: {error}"[:100]
    return LostRankError(
        f"another of the processes that share the work is gone, or cannot be reached ({reason})."
    )
