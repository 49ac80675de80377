"""Where the jobs of the engine `slurm` run: a cluster, or this machine in its place."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rpat_cli.errors import EngineError
from rpat_cli.records.regular import read_regular
from rpat_cli.sweep.engines.node import Attempt, kill_group, lock_of

if TYPE_CHECKING:
    from rpat_cli.sweep.engines.slurm import SlurmSection

QUEUE_INTERVAL = 10.0
"""Seconds between two calls of `squeue`."""

RESULTS_INTERVAL = 1.0
"""Seconds between two looks for results on a file system that many nodes share."""

LOST_AFTER = 30.0
"""Seconds for which a job may neither be queued nor have a result before it counts as lost."""


class Cluster(Protocol):
    """What differs between a Slurm cluster and this machine in its place. `pause` is the least time
    in seconds between two polls."""

    pause: float

    def submit(self, section: "SlurmSection", name: str, folder: Path, attempt: Attempt) -> Any:
        """Submit under a name; returns a job of submitit. Raises `EngineError`."""
        ...

    def queued(self) -> Mapping[str, str]:
        """The ids, by name, of the jobs that wait or run. Raises `EngineError` if the queue cannot
        be read."""
        ...

    def lost(self, job: "SubmittedJob") -> bool:
        """Whether a job is neither queued nor running any more, so that no other result will
        come."""
        ...

    def stop(self, job: "SubmittedJob", *, force: bool) -> None:
        """Ask a job to save and stop (SIGTERM), or with `force` kill it."""
        ...


@dataclass
class SubmittedJob:
    """A job of submitit, submitted or taken over at the time `since`, and last asked to stop at the
    time `asked`."""

    handle: Any
    log: Path
    since: float
    asked: float | None = None


class SlurmCommands:
    """A real cluster, through Slurm's own commands."""

    pause = RESULTS_INTERVAL

    def __init__(self, submitit: Any) -> None:
        self._submitit = submitit
        self._queue: dict[str, str] = {}
        self._read_at = float("-inf")
        self._seen: dict[str, float] = {}
        if shutil.which("srun") is None:
            raise EngineError(
                "Slurm is not available here: `srun` was not found. Call `rpat sweep` on a login "
                "node of the cluster, or choose another engine with --engine."
            )

    def submit(self, section: "SlurmSection", name: str, folder: Path, attempt: Attempt) -> Any:
        executor = self._submitit.SlurmExecutor(folder, max_num_timeout=section.requeues)
        executor.update_parameters(**_parameters(section, name))
        try:
            return executor.submit(attempt)
        except (RuntimeError, OSError) as error:  # submitit's own errors are RuntimeErrors
            raise EngineError(f"Slurm rejected the job: {str(error).strip()}") from error

    def queued(self) -> Mapping[str, str]:
        self._read_queue(must=True)
        return self._queue

    def lost(self, job: SubmittedJob) -> bool:
        self._read_queue(must=False)
        job_id = job.handle.job_id
        if job_id in self._queue.values():
            return False
        last_seen = max(job.since, self._seen.get(job_id, 0.0))
        # A job asked to stop is expected to leave the queue: nothing to wait for then.
        patience = LOST_AFTER if job.asked is None else 0.0
        return self._read_at - last_seen > patience

    def stop(self, job: SubmittedJob, *, force: bool) -> None:
        # A waiting job is removed from the queue; a running one only gets the signal, and has time
        # to save.
        signal_name = "KILL" if force else "TERM"
        for options in (["--state=PENDING"], ["--state=RUNNING", f"--signal={signal_name}"]):
            command = ["scancel", *options, job.handle.job_id]
            subprocess.run(command, check=False, capture_output=True)
        self._read_at = float("-inf")  # the queue has changed: read it again

    def _read_queue(self, *, must: bool) -> None:
        """Read the queue, unless it was read a moment ago. Raises `EngineError` if it `must` be
        read and cannot."""
        now = time.monotonic()
        if now - self._read_at < QUEUE_INTERVAL:
            return
        command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %j"]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            if must:
                reason = (getattr(error, "stderr", None) or str(error)).strip()
                raise EngineError(
                    f"Slurm's queue cannot be read: {reason}. Try again when `squeue` works."
                ) from error
            return
        self._read_at = now
        self._queue = {}
        for line in done.stdout.splitlines():
            job_id, _, name = line.partition(" ")
            self._queue[name] = job_id
        self._seen.update(dict.fromkeys(self._queue.values(), now))


def _parameters(section: "SlurmSection", name: str) -> dict[str, Any]:
    """The settings under the names that submitit's `SlurmExecutor` has for them."""
    given = {
        "partition": section.partition,
        "account": section.account,
        "qos": section.qos,
        "constraint": section.constraint,
        "mem": f"{round(section.memory * 1024)}MB" if section.memory else None,
        "gpus_per_node": section.gpus or None,
        "setup": section.setup or None,
    }
    return {
        **{key: value for key, value in given.items() if value is not None},
        **({"nodes": section.nodes, "ntasks_per_node": 1} if section.nodes > 1 else {}),
        "job_name": name,
        "dependency": "singleton",  # never two jobs of one name at once, not even of two sweeps
        "time": section.time,
        "signal_delay_s": section.grace,
        "cpus_per_task": section.cpus,
        "additional_parameters": {"requeue": True, **section.sbatch},
    }


class ThisMachine:
    """This machine in place of a cluster, through submitit's local executor: there is no queue,
    every job starts at once.

    A job of an earlier call is not taken over, but waited for: it holds its folder's lock.
    """

    pause = 0.0

    def __init__(self, submitit: Any) -> None:
        self._submitit = submitit

    def submit(self, section: "SlurmSection", name: str, folder: Path, attempt: Attempt) -> Any:
        # Jobs are named by their process ids, which the system uses again.
        shutil.rmtree(folder, ignore_errors=True)
        executor = self._submitit.LocalExecutor(folder, max_num_timeout=section.requeues)
        executor.update_parameters(
            name=name,
            timeout_min=section.time,
            signal_delay_s=section.grace,
            gpus_per_node=section.gpus,
            setup=section.setup,
        )
        return executor.submit(attempt)

    def queued(self) -> Mapping[str, str]:
        return {}

    def lost(self, job: SubmittedJob) -> bool:
        return bool(job.handle.done())

    def stop(self, job: SubmittedJob, *, force: bool) -> None:
        process = read_regular(lock_of(job.log))
        if force and process:
            kill_group(int(process))
        else:
            with suppress(ProcessLookupError):
                os.kill(int(job.handle.job_id), signal.SIGTERM)
