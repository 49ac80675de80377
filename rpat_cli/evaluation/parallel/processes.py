"""Several processes share the chunks of one evaluation.

A small network leaves most cores of a machine idle, and one GPU knows nothing of the next: separate
processes, each with its share of the cores or a GPU of its own, use them. Which process attacks a
chunk does not matter to the result.

Workers are fresh interpreters ("spawn"): forking a process in which OpenMP or CUDA has run is not
safe. What they need travels by value through pipes: against the seconds that a chunk takes that
costs nothing, and unlike shared memory it works in containers, which have little of that.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, Protocol, TypeAlias

import torch

from rpat_cli.attacks import ATTACKS
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Task
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.signals import ignoring_signals

Jobs: TypeAlias = int | Literal["auto"]

MOST_AUTOMATIC_JOBS = 8
"""Each process takes some 300 MB for torch alone."""

_LONG = 300
"""Forward passes for each image, as many as 100 gradient steps take, and worth a worker."""


class Bench(Protocol):
    """What workers are given: it can be pickled, is opened on a device, and attacks one chunk after
    another there."""

    device: torch.device

    def open(self, device: torch.device) -> None: ...

    def attack(self, task: Task) -> ChunkResult: ...


class Helpers(Protocol):
    """Processes that share the chunks of one evaluation after another."""

    def give(self, bench: Bench) -> None:
        """Hand everyone what is to be attacked with, in place of what they had.

        Raises `NotPortableError` if that cannot be pickled here or read there, for instance a model
        whose class was defined in a notebook.
        """

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """Attack the chunks; results come as they are ready. Raises `RpatError` if a process
        dies."""


class NotPortableError(RpatError):
    """What was to be shared cannot be handed to another process."""


def count_jobs(
    jobs: Jobs, specs: Sequence[AttackSpec], device: torch.device, *, samples: int, chunk_size: int
) -> int:
    """How many processes are to share an evaluation; 1 means that this one does it alone.

    "auto" is one per GPU, or per core that torch may use (`OMP_NUM_THREADS` is respected) up to 8,
    but 1 for suites that would be done before a worker has started. Never more than there are
    chunks.
    """
    if jobs == "auto":
        units = {"cuda": torch.cuda.device_count(), "cpu": torch.get_num_threads()}.get(
            device.type, 1
        )
        wanted = min(units, MOST_AUTOMATIC_JOBS) if any(map(_is_long, specs)) else 1
    else:
        wanted = jobs
    return max(1, min(wanted, -(-samples // chunk_size)))


def _is_long(spec: AttackSpec) -> bool:
    return ATTACKS[spec.name].passes(spec.settings) >= _LONG


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    connection: Connection

    def send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except OSError:
            raise self._died() from None

    def receive(self) -> Any:
        """The worker's answer. Raises `RpatError` if it died, and what it failed of."""
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._died() from None
        return content_of(answer)

    def _died(self) -> RpatError:
        self.process.join(5)
        if self.process.exitcode == -signal.SIGTERM:
            # the whole group was told to stop: so are we, and our own handler has the better words
            time.sleep(1)
        return RpatError(
            f"a worker process of the evaluation died (exit code {self.process.exitcode}"
            f"{', killed: is there enough memory?' if self.process.exitcode == -9 else ''}). "
            "Run the command again to go on; with --jobs 1 it needs the least memory."
        )


@dataclass(frozen=True)
class _Failure:
    """An exception of a worker, as text: not every exception can be pickled."""

    message: str
    kind: Literal["user", "bug", "not portable"]

    def error(self) -> Exception:
        kinds = {"user": RpatError, "bug": RuntimeError, "not portable": NotPortableError}
        return kinds[self.kind](self.message)


class Desk:
    """Where a process works for another one: `answer` takes a bench, or a chunk to attack with it.

    `device_of` says where to open a bench that was on another process's device. What goes wrong is
    an answer, too.
    """

    def __init__(self, device_of: Callable[[torch.device], torch.device]) -> None:
        self._device_of = device_of
        self._bench: Bench | None = None

    def answer(self, message: bytes) -> bytes:
        """What `packed` gave there, answered for `content_of` there."""
        try:
            content = pickle.loads(message)
        except Exception as error:  # the model's own code may raise anything when it is read
            return pickle.dumps(_Failure(f"{type(error).__name__}: {error}", "not portable"))
        try:
            return pickle.dumps(self._answer(content))
        except RpatError as error:
            return pickle.dumps(_Failure(str(error), "user"))
        except Exception:
            return pickle.dumps(_Failure(f"in a worker process: {traceback.format_exc()}", "bug"))

    def _answer(self, content: Any) -> Any:
        if isinstance(content, Task):
            assert self._bench is not None
            return self._bench.attack(content)
        content.open(self._device_of(content.device))
        self._bench = content
        return "ready"


def packed(content: Bench | Task) -> bytes:
    """A message for a `Desk`. Raises `NotPortableError`."""
    try:
        return pickle.dumps(content)
    except Exception as error:  # pickle raises whatever an object's own code does
        raise NotPortableError(f"{type(error).__name__}: {error}") from None


def content_of(answer: bytes) -> Any:
    """What a `Desk` answered. Raises what it failed of."""
    content = pickle.loads(answer)
    if isinstance(content, _Failure):
        raise content.error()
    return content


class Workers:
    """`count` processes, started at once in the background, for as many evaluations as there are;
    close them.

    On a CPU they divide this process's threads; on CUDA they take the GPUs in turn.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // count)
        self._workers: list[_Worker] = []
        with ignoring_signals():
            for number in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work,
                    args=(theirs, str(_device_of(number, device)), threads),
                    daemon=True,
                )
                process.start()
                theirs.close()  # so that the pipe ends when the worker does
                self._workers.append(_Worker(process, ours))

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def give(self, bench: Bench) -> None:
        """See `Helpers`."""
        message = packed(bench)
        for worker in self._workers:
            worker.send(message)
        for worker in self._workers:
            worker.receive()

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """See `Helpers`; each worker has one chunk at a time.

        Whoever leaves early ends the workers: what they are at is of no use.
        """
        waiting = iter(tasks)
        busy: dict[Connection, _Worker] = {}

        def employ(worker: _Worker) -> None:
            if (task := next(waiting, None)) is not None:
                busy[worker.connection] = worker
                worker.send(packed(task))

        try:
            for worker in self._workers:
                employ(worker)
            while busy:
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    worker = busy[connection]
                    result: ChunkResult = worker.receive()
                    del busy[connection]
                    employ(worker)
                    yield result
        finally:
            if busy:
                self.close()


@contextmanager
def sharing(count: int, device: torch.device) -> Iterator[Workers | None]:
    """`count` workers for the time of the block; `None` where this process is to do it alone."""
    if count == 1:
        yield None
    else:
        with Workers(count, device) as workers:
            yield workers


def _device_of(number: int, device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def _work(connection: Connection, device: str, threads: int) -> None:
    """A worker's life: take a bench, or a chunk to attack with it, and answer."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    desk = Desk(lambda _: torch.device(device))
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(desk.answer(message))


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to answer to."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
