"""This machine: one process per slot; a slot is a GPU, or a share of the CPU cores."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from rpat_cli.sweep.engines.base import Ended, EngineSection, Job
from rpat_cli.sweep.engines.node import RANKS, kill_group, shared_by, start

Slot = Mapping[str, str]
"""The environment variables of whatever runs in the slot."""


class LocalSection(EngineSection):
    """This machine: each trial takes a GPU, or its share of the cores."""

    name: Literal["local"] = Field("local", description="trials are processes on this machine")

    def slots(self, jobs: int | None) -> int:
        return len(self._slots(jobs))

    def start(self, jobs: int | None) -> "Local":
        return Local(self._slots(jobs))

    def _slots(self, jobs: int | None) -> list[Slot]:
        return local_slots(jobs or self.jobs, visible_gpus(), usable_cores(), self.ranks or 1)


def local_slots(jobs: int | None, gpus: Sequence[str], cores: int, ranks: int = 1) -> list[Slot]:
    """One slot per GPU, or `jobs` slots that take the GPUs in turn; without a GPU `jobs` (default:
    `cores`) slots that share the cores. A slot for `ranks` processes has as many GPUs, or cores."""
    shared = {RANKS: str(ranks)} if ranks > 1 else {}
    if gpus:
        groups = [gpus[i : i + ranks] for i in range(0, len(gpus) - ranks + 1, ranks)] or [gpus]
        places = [groups[i % len(groups)] for i in range(jobs or len(groups))]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(place), **shared} for place in places]
    jobs = jobs or max(1, cores // ranks)
    return [shared_by(ranks, cores // jobs) for _ in range(jobs)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return chosen.split(",")[:count] if chosen else [str(i) for i in range(count)]


def usable_cores() -> int:
    """The cores that this process may run on: in a container or a cluster job, fewer than the
    machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    slot: Slot


class Local:
    """Runs each job as a child process.

    A job holds a lock next to its log for as long as it lives, even if this process is killed: the
    next call waits for it instead of starting a second job in the same folder.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free = list(slots)
        self._running: dict[str, _Running] = {}
        self.slots = len(slots)

    def submit(self, job: Job) -> bool:
        """Start a job in a free slot; there must be one."""
        slot = self._free[0]
        process = start(job.prepare, job.log, slot)
        if process is None:
            return False
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
        if force:
            kill_group(process.pid)
        else:
            with suppress(ProcessLookupError):
                process.terminate()
