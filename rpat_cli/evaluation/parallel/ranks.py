"""The processes that torchrun started, on one machine or several, share the chunks of one
evaluation.

Rank 0 leads: it alone reads and writes files, prints, and knows how far the evaluation is. The
others load neither model nor data: like the workers of `--jobs` they answer the messages that they
are sent. Chunks go out in rounds, one for each rank; they are of even size, so no rank waits long
for the slowest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from rpat_cli.errors import LostRankError
from rpat_cli.evaluation.parallel import group
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Task
from rpat_cli.evaluation.parallel.desk import Bench, Desk, content_of, packed
from rpat_cli.signals import leave_after

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


class Together:
    """A `Pool` for ranks that all make the same evaluation of the same model: each attacks its
    share of the chunks, and all have all results."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def give(self, bench: Bench) -> None:
        """See `Pool`; every rank has a bench of its own already."""
        self._bench = bench

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """See `Pool`; results come in the order of the tasks."""
        assert self._bench is not None
        rank, size = dist.get_rank(), dist.get_world_size()
        waiting = iter(tasks)
        while tasks_now := list(islice(waiting, size)):
            mine = self._bench.attack(tasks_now[rank]) if rank < len(tasks_now) else None
            results: list[ChunkResult | None] = [None] * size
            with group.noticing_losses():
                dist.all_gather_object(results, mine)
            yield from (result for result in results if result is not None)


@contextmanager
def leading(*, joined: bool = False) -> Iterator[Ranks]:
    """For rank 0: the pool of the other ranks, which are in `serve`. They leave at the end of the
    block; after an error in it, when this process is gone. `joined`: they have trained together.

    Raises `LostRankError` if the ranks do not find each other.
    """
    if not joined:
        group.join()
    ranks = Ranks()
    yield ranks
    ranks.dismiss()
    group.leave()


def serve(*, joined: bool = False) -> None:
    """For all other ranks: attack what rank 0 sends, until it has no more. Raises `LostRankError`
    when it is gone."""
    leave_after(GRACE)
    if not joined:
        group.join()
    desk = Desk(_own_device)
    while (message := _scatter(None)) is not None:
        _gather(desk.answer(message) if message else _NOTHING)
    group.leave()


def _own_device(device: torch.device) -> torch.device:
    """This rank's GPU, if rank 0 is on one. Raises `RpatError` if there is none."""
    return device if device.type != "cuda" else torch.device("cuda", group.own_gpu())


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
    try:
        group.interruptibly(call, *args)
    except LostRankError as error:
        advice = "The chunks done are saved: run the command again to go on."
        raise LostRankError(f"{error} {advice}") from None
