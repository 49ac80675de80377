"""Several processes share the chunks of one evaluation.

A small network leaves most cores of a machine idle, and one GPU knows nothing of the next: separate
processes, each with its share of the cores or a GPU of its own, use them. Which process attacks a
chunk does not matter to the result.

Workers are fresh interpreters ("spawn"): forking a process in which OpenMP or CUDA has run is not
safe. What they need travels by value through pipes: against the seconds that a chunk takes that
costs nothing, and unlike shared memory it works in containers, which have little of that.

The pool is our own, since the executors were tried and fall short. That of `concurrent.futures`
cannot address a worker (to give each the bench once, and a GPU of its own), nor kill one before
Python 3.14, nor say which signal one died of, and its workers outlive a parent that was killed.
loky's outlive it too, and ending them needs the program `pgrep`: where that is missing, as in slim
container images, it hangs.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, Protocol, TypeAlias

import torch

from rpat_cli.attacks import ATTACKS
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Task
from rpat_cli.evaluation.parallel.desk import Bench, Desk, content_of, packed
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.hardware import keep_freed_memory
from rpat_cli.signals import ignoring_signals

Jobs: TypeAlias = int | Literal["auto"]

MOST_AUTOMATIC_JOBS = 8
"""Each process takes some 300 MB for torch alone."""

WORKER = "rpat-worker"
"""The beginning of the names of worker processes."""

UNGUARDED = 76
"""The exit code of a worker in which the caller's script has called rpat again: spawned processes
import it."""

_LONG = 300
"""Forward passes for each image, as many as 100 gradient steps take, and worth a worker."""


class Pool(Protocol):
    """Processes that share the chunks of one evaluation after another."""

    def give(self, bench: Bench) -> None:
        """Send the bench to every process, in place of the one that it had.

        Raises `NotPortableError` if it cannot be pickled here or read there, for instance a model
        that holds an open file.
        """

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """Attack the chunks; results come as they are ready. Raises `RpatError` if a process
        dies."""


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
    answered: list[bool] = field(default_factory=list, compare=False)

    def send(self, content: bytes) -> None:
        try:
            self.connection.send_bytes(content)
        except OSError:
            raise self._died() from None

    def receive(self) -> bytes:
        """The worker's answer, for `content_of`. Raises `RpatError` if it died."""
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._died() from None
        self.answered.append(True)
        return answer

    def _died(self) -> RpatError:
        self.process.join(5)
        code = self.process.exitcode
        if code == -signal.SIGTERM:
            # The whole process group is being stopped, this process too: its own handler, which
            # says how to go on, gets a second to run before this error does.
            time.sleep(1)
        if code == UNGUARDED:
            return RpatError(
                "the worker processes of the evaluation cannot start: each of them imports "
                f"{_script()}, and that calls rpat again. {guard_hint()}"
            )
        if code == 1 and not self.answered and _script():
            return RpatError(
                "a worker process of the evaluation failed while it started (exit code 1; its "
                f"message is above). It imports {_script()}. {guard_hint()}"
            )
        reason = ", killed: is there enough memory?" if code == -9 else ""
        return RpatError(
            f"a worker process of the evaluation died (exit code {code}{reason}). "
            "The chunks done are saved: run the command again to go on. --jobs 1 needs the least "
            "memory."
        )


def _script() -> str:
    """The script that spawned processes import, if there is one."""
    main = sys.modules["__main__"]
    # Of a module, such as rpat itself, its __main__ is imported under another name, and guarded.
    return "" if main.__spec__ else str(getattr(main, "__file__", "") or "")


def guard_hint() -> str:
    """What a script has to do that starts processes."""
    return (
        "Put what the script does, the call of rpat and all that need not be repeated, below "
        '`if __name__ == "__main__":`, or use jobs=1.'
    )


class Workers:
    """`count` processes, started at once in the background, for one evaluation after another; a
    context manager, which ends them.

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
                    name=f"{WORKER}-{number}",
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
        """See `Pool`."""
        message = packed(bench)
        for worker in self._workers:
            worker.send(message)
        # All are read before one may raise: what is left in a pipe would be taken for the answer to
        # the next message.
        for answer in [worker.receive() for worker in self._workers]:
            content_of(answer)

    def execute(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """See `Pool`; each worker has one chunk at a time.

        A caller that stops reading early ends the workers: nobody needs the chunks that they are
        busy with.
        """
        waiting = iter(tasks)
        busy: dict[Any, _Worker] = {}  # by the connection that its result will come through

        def employ(worker: _Worker) -> None:
            task = next(waiting, None)
            if task is not None:
                busy[worker.connection] = worker
                worker.send(packed(task))

        try:
            for worker in self._workers:
                employ(worker)
            while busy:
                for connection in wait(list(busy)):
                    worker = busy[connection]
                    result: ChunkResult = content_of(worker.receive())
                    del busy[connection]
                    employ(worker)  # before the result is looked at: nobody waits for that
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
    """A worker's life: answer one message after another."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout = sys.stderr  # for what the model or an attack prints: stdout is for results
    torch.set_num_threads(threads)
    keep_freed_memory()
    desk = Desk(lambda _: torch.device(device))
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(desk.answer(message))


def _end_with_parent() -> None:
    """A parent that was killed could not end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
