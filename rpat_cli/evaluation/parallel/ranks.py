"""The processes that torchrun started, on one machine or several, share the chunks of one
evaluation.

Rank 0 leads: it alone reads and writes files, prints, and knows how far the evaluation is. The
others load neither model nor data: like the workers of `--jobs` they answer the messages that they
are sent. Chunks go out in rounds, one for each rank; they are of even size, so no rank waits long
for the slowest.

Messages go through gloo: results are small and on the CPU, and it notices at once when a process is
gone. NCCL does not, and needs a GPU for each rank.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from rpat_cli.errors import RpatError
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Task
from rpat_cli.evaluation.parallel.desk import Bench, Desk, content_of, packed
from rpat_cli.signals import leave_after

RENDEZVOUS_TIMEOUT = timedelta(minutes=3)
"""For the ranks to find each other: rank 0 may be slow to start, or may have been killed."""

MESSAGE_TIMEOUT = timedelta(hours=12)
"""For a network that fails in silence; a process that dies is noticed at once. Long, since one
chunk may take hours on a CPU."""

GRACE = 5.0
"""Seconds that the other ranks live on after a signal, which all ranks get: rank 0, which says how
to go on, shall handle it before it notices that they are gone."""

_NOTHING = b""
"""The message to a rank for which a round has no chunk, and its answer."""


class Ranks:
    """The other ranks as a `Pool` for rank 0, which does its own share of the chunks."""

    def __init__(self) -> None:
        self._others = dist.get_world_size() - 1
        self._bench: Bench | None = None

    def give(self, bench: Bench) -> None:
        """See `Pool`."""
        self._bench = bench
        self._send([packed(bench)] * self._others)
        self._receive()

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """See `Pool`; results come in the order of the tasks."""
        assert self._bench is not None
        waiting = iter(tasks)
        for mine in waiting:
            self._send([packed(task) for task in islice(waiting, self._others)])
            yield self._bench.attack(mine)
            yield from self._receive()

    def dismiss(self) -> None:
        """Let the other ranks go: nothing more will come."""
        self._send([None] * self._others)

    def _send(self, messages: Sequence[bytes | None]) -> None:
        idle = [_NOTHING] * (self._others - len(messages))
        _scatter([_NOTHING, *messages, *idle])

    def _receive(self) -> list[Any]:
        return [content_of(answer) for answer in _gather(_NOTHING) if answer != _NOTHING]


@contextmanager
def leading() -> Iterator[Ranks]:
    """For rank 0: the pool of the other ranks, which are in `serve`. They leave at the end of the
    block; after an error in it, when this process is gone.

    Raises `RpatError` if the ranks do not find each other.
    """
    _join()
    ranks = Ranks()
    yield ranks
    ranks.dismiss()
    dist.destroy_process_group()


def serve() -> None:
    """For all other ranks: attack what rank 0 sends, until it has no more. Raises `RpatError` when
    it is gone."""
    leave_after(GRACE)
    _join()
    desk = Desk(_own_device)
    while (message := _scatter(None)) is not None:
        _gather(desk.answer(message) if message else _NOTHING)
    dist.destroy_process_group()


def _own_device(device: torch.device) -> torch.device:
    """This rank's GPU, if rank 0 is on one. Raises `RpatError` if there is none."""
    if device.type != "cuda":
        return device
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise RpatError(
            f"rank {dist.get_rank()} should use GPU {local} of its machine, which has {count}. "
            "Start no more processes on each machine than it has GPUs: torchrun "
            f"--nproc-per-node {max(count, 1)}"
        )
    return torch.device("cuda", local)


def _join() -> None:
    def join() -> None:
        store, rank, size = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=MESSAGE_TIMEOUT
        )

    _interruptibly(join)


def _scatter(messages: list[bytes | None] | None) -> bytes | None:
    """Rank 0 has a message for every rank; each gets its own."""
    received: list[bytes | None] = [None]
    _interruptibly(dist.scatter_object_list, received, messages)
    return received[0]


def _gather(answer: bytes) -> list[bytes]:
    """Every rank has an answer; rank 0 gets all, by rank, the others nothing."""
    answers = [_NOTHING] * dist.get_world_size() if dist.get_rank() == 0 else None
    _interruptibly(dist.gather_object, answer, answers)
    return answers or []


def _interruptibly(call: Callable[..., Any], *args: Any) -> None:
    """Call a function of torch.distributed in a thread, and wait for it in Python: while it waits
    in C++, no signal handler would run.

    Raises `RpatError` if it fails.
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
        raise RpatError(
            f"another process of this torchrun is gone, or cannot be reached ({failures[0]}). "
            "The chunks done are saved: run the command again to go on."
        )
