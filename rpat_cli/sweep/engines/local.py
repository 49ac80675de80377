"""This machine: one process for each slot; a slot is a GPU, or a share of the CPU's cores."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from rpat_cli.sweep.engines.base import Ended, Job

try:
    import fcntl
except ImportError:  # Windows: without the lock, two sweeps at once may train the same trial twice
    fcntl = None  # type: ignore[assignment]

Slot = Mapping[str, str]
"""The environment variables of whatever runs in the slot."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def local_slots(jobs: int | None, gpus: Sequence[str], cores: int) -> list[Slot]:
    """One slot for each GPU, or `jobs` of them in turn; without a GPU, `jobs` (default: `cores`) sharing the cores."""
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs or len(gpus))]
    jobs = jobs or cores
    threads = str(max(1, cores // jobs))
    return [dict.fromkeys(THREADS, threads) for _ in range(jobs)]


def visible_gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES calls the GPUs that we may use."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return chosen.split(",")[:count] if chosen else [str(i) for i in range(count)]


def usable_cores() -> int:
    """The cores that this process may run on, which in a container or a job are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    slot: Slot


class Local:
    """Runs each job as a child process in a session of its own, so that Ctrl-C at the keyboard reaches only us.

    A job holds a lock beside its log for as long as it lives, even if we are killed: the next call waits for it
    instead of starting a second one in the same folder.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free = list(slots)
        self._running: dict[str, _Running] = {}
        self.slots = len(slots)

    def submit(self, job: Job) -> bool:
        """Start a job in a free slot; there must be one."""
        slot = self._free[0]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.with_name("lock").open("w") as lock:
            if not _locked(lock):
                return False
            command = job.prepare()
            with job.log.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **slot},
                    start_new_session=True,
                    pass_fds=(lock.fileno(),) if fcntl is not None else (),  # the child's copy keeps the lock
                )
        self._free.remove(slot)
        self._running[job.name] = _Running(process, slot)
        return True

    def poll(self) -> list[Ended]:
        ended = [
            Ended(name, running.process.returncode)
            for name, running in self._running.items()
            if running.process.poll() is not None
        ]
        for item in ended:
            self._free.append(self._running.pop(item.name).slot)
        return ended

    def cancel(self, name: str, *, force: bool = False) -> None:
        process = self._running[name].process
        with suppress(ProcessLookupError):
            if force:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started itself
            else:
                process.terminate()


def _locked(lock: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
