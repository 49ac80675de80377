"""The processes that torchrun started, on one machine or several, share the chunks of one
evaluation.

Rank 0 leads: it alone reads and writes files, speaks, and knows how far the evaluation is. The
others need neither model nor data of their own: like the workers of `--jobs` they take what they
are sent, and answer. Chunks go out in rounds of one for each rank; they are even, so nobody waits
long for the slowest.

What is said goes through gloo: results are small and lie on the CPU, and it notices at once when a
process is gone.
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

LONGEST_START = timedelta(minutes=3)
"""For whoever waits at the door: torchrun, or rank 0 reading from a slow disk, may be late, or may
have been killed."""

LONGEST_SILENCE = timedelta(hours=12)
"""For networks that fail in silence; a process that dies is missed at once. One chunk may take
hours on a CPU."""

GRACE = 5.0
"""Seconds that the other ranks outlive a signal, which reaches all: rank 0 shall hear it before it
misses them."""

_NOTHING = b""
"""What a rank is told, and answers, when there is no chunk left for it in a round."""


class Ranks:
    """The other ranks, as rank 0 sees them: `Helpers`, beside which it does its own share."""

    def __init__(self) -> None:
        self._others = dist.get_world_size() - 1
        self._bench: Bench | None = None

    def give(self, bench: Bench) -> None:
        """See `Helpers`."""
        self._bench = bench
        self._tell([packed(bench)] * self._others)
        self._hear()

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """See `Helpers`; results come in the order of the tasks."""
        assert self._bench is not None
        waiting = iter(tasks)
        for mine in waiting:
            self._tell([packed(task) for task in islice(waiting, self._others)])
            yield self._bench.attack(mine)
            yield from self._hear()

    def dismiss(self) -> None:
        """Let the other ranks go: nothing more will come."""
        self._tell([None] * self._others)

    def _tell(self, messages: Sequence[bytes | None]) -> None:
        idle = [_NOTHING] * (self._others - len(messages))
        _scatter([_NOTHING, *messages, *idle])

    def _hear(self) -> list[Any]:
        return [content_of(answer) for answer in _gather(_NOTHING) if answer != _NOTHING]


@contextmanager
def leading() -> Iterator[Ranks]:
    """What rank 0 does its evaluations with. The other ranks, who `serve`, may leave at the end of
    the block.

    After an error they leave when this process has left. Raises `RpatError` if the ranks do not
    find each other.
    """
    _join()
    ranks = Ranks()
    yield ranks
    ranks.dismiss()
    dist.destroy_process_group()


def serve() -> None:
    """What all other ranks do: attack what rank 0 sends, until it has no more. Raises `RpatError`
    when it is gone."""
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
        store, rank, size = next(rendezvous("env://", timeout=LONGEST_START))
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_SILENCE
        )

    _patiently(join)


def _scatter(messages: list[bytes | None] | None) -> bytes | None:
    """Rank 0 has a message for every rank; each gets its own."""
    received: list[bytes | None] = [None]
    _patiently(dist.scatter_object_list, received, messages)
    return received[0]


def _gather(answer: bytes) -> list[bytes]:
    """Every rank has an answer; rank 0 gets all, by rank, the others nothing."""
    answers = [_NOTHING] * dist.get_world_size() if dist.get_rank() == 0 else None
    _patiently(dist.gather_object, answer, answers)
    return answers or []


def _patiently(call: Callable[..., Any], *args: Any) -> None:
    """Wait for a call of torch.distributed in Python: inside, where it waits, no signal would be
    heard.

    Raises `RpatError` if it fails.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            call(*args)
        except Exception as error:  # of several classes, all of which mean the same
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise RpatError(
            f"another process of this torchrun is gone, or cannot be reached ({failures[0]}). "
            "The chunks done are saved: run the command again to go on."
        )
