"""Slurm: each trial is a job of its own on the cluster, by way of submitit (extra `slurm`).

Call `rpat sweep` where `sbatch` works, with the sweep's folder and the Python environment on a file
system that the nodes share. The jobs outlive the sweep: the next call finds them in the queue by
their names and takes them over.

A trial that runs out of time saves, and its job queues itself again, whether or not the sweep still
runs. So does one that is pre-empted, if Slurm is told to warn of it
(`PreemptParameters=send_user_signal`). Without that the trial saves too; then either Slurm queues
the job again (`PreemptMode=REQUEUE`), or the sweep does once the job has left the queue.

The tests run on one machine, against submitit's local executor and against programs that speak as
Slurm's do; a cluster of many nodes is not at hand there.
"""

import hashlib
import logging
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from rpat_cli.errors import EngineError, MissingExtraError
from rpat_cli.sweep.engines.base import Ended, EngineSection, Job
from rpat_cli.sweep.engines.node import (
    EXIT_SAVED,
    Attempt,
    Work,
    blocked,
    exclusive,
    kill_group,
    lock_of,
    threads,
)

LOOK = 10.0
"""Seconds between two calls of `squeue`."""

RESULTS = 1.0
"""Seconds between two looks for results on a file system that many nodes share."""

PATIENCE = 30.0
"""Seconds for which a job may be neither in the queue nor have a result before it counts as
lost."""

TAIL = 5
"""How many of the last things that Slurm said of a lost job go to its log."""


class SlurmSection(EngineSection):
    """A Slurm cluster. Each trial is a job; the settings are those of `sbatch`."""

    name: Literal["slurm"] = Field("slurm", description="trials are jobs of a Slurm cluster")
    jobs: int | None = Field(
        100, ge=1, description="trials queued or running at once; --jobs goes before it"
    )
    partition: str | None = Field(None, description="partition of the jobs")
    account: str | None = Field(None, description="account that is charged")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that a node must have")
    time: int = Field(
        240, ge=1, description="time limit in minutes; a trial that needs longer is queued again"
    )
    grace: int = Field(
        120, ge=1, description="seconds before the time limit at which a trial is asked to save"
    )
    requeues: int = Field(
        20, ge=0, description="how often a trial that runs out of time is queued again"
    )
    gpus: int = Field(1, ge=0, description="GPUs for each trial; 0 for a cluster without")
    cpus: int = Field(4, ge=1, description="cores for each trial")
    memory: float | None = Field(None, gt=0, description="memory for each trial in GB")
    setup: list[str] = Field(
        [], description="lines of shell that run first, such as `module load cuda`"
    )
    sbatch: dict[str, Any] = Field(
        {}, description="further options of sbatch: {nodelist: node7, exclusive: true}"
    )
    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="`local` tries it out on this machine, unqueued"
    )

    def slots(self, jobs: int | None) -> int:
        return jobs or self.jobs or 1

    def start(self, jobs: int | None) -> "Slurm":
        return Slurm(self, self.slots(jobs))


class _Cluster(Protocol):
    """What differs between a cluster and this machine in its place."""

    pause: float

    def submit(self, section: SlurmSection, name: str, folder: Path, attempt: Attempt) -> Any:
        """Submit under a name; a job of submitit. Raises `EngineError`."""
        ...

    def queued(self) -> Mapping[str, str]:
        """Names and ids of the jobs that wait or run. Raises `EngineError` if that cannot be
        told."""
        ...

    def lost(self, under_way: "_UnderWay") -> bool:
        """Whether a job is neither queued nor running any more, so that no other result will
        come."""
        ...

    def stop(self, under_way: "_UnderWay", *, force: bool) -> None: ...


@dataclass
class _UnderWay:
    """A job of submitit that was submitted or taken over at `since`, and was last asked to stop at
    `asked`."""

    job: Any
    log: Path
    since: float
    asked: float | None = None


class Slurm:
    """Submits each job to Slurm, and finds those of earlier calls by their names."""

    def __init__(self, section: SlurmSection, slots: int) -> None:
        self.slots = slots
        self._section = section
        self._submitit = _submitit()
        self._cluster: _Cluster = (_Commands if section.cluster == "slurm" else _Here)(
            self._submitit
        )
        self._running: dict[str, _UnderWay] = {}
        self._over: set[str] = set()  # ids of jobs that may still stand in the queue
        self._due = 0.0

    def submit(self, job: Job) -> bool:
        """Queue a job, or take over the one that an earlier call has queued for the same folder."""
        log = job.log.resolve()
        folder = log.with_name("slurm")
        name = f"rpat-{job.name}-{hashlib.sha256(str(log.parent).encode()).hexdigest()[:8]}"
        job_id = self._cluster.queued().get(name)
        if job_id and job_id not in self._over:
            submitted = self._submitit.SlurmJob(folder, job_id)
        else:
            with exclusive(log) as lock:  # against other engines
                if lock is None:
                    return False
                command = job.prepare()
            work = Work(command, log, threads(self._section.cpus), Path.cwd())
            attempt = Attempt(work, pickle.dumps(job.prepare))
            with blocked(signal.SIGINT):  # Ctrl-C is for the sweep alone
                submitted = self._cluster.submit(self._section, name, folder, attempt)
        self._running[job.name] = _UnderWay(submitted, log, time.monotonic())
        return True

    def poll(self) -> list[Ended]:
        now = time.monotonic()
        if now < self._due:
            return []
        self._due = now + self._cluster.pause
        ended = []
        for name, under_way in list(self._running.items()):
            code = self._exit_code(under_way)
            if code is not None:
                self._over.add(self._running.pop(name).job.job_id)
                ended.append(Ended(name, code))
            elif (
                under_way.asked is not None and now - under_way.asked > LOOK
            ):  # it may have come before the job began
                self.cancel(name)
        return ended

    def cancel(self, name: str, *, force: bool = False) -> None:
        under_way = self._running[name]
        under_way.asked = time.monotonic()
        self._cluster.stop(under_way, force=force)

    def _exit_code(self, under_way: _UnderWay) -> int | None:
        """The trial's exit code; None as long as there is none."""
        lost = self._cluster.lost(under_way)  # asked first: its result may come meanwhile
        paths = under_way.job.paths
        # Listing a folder asks the file server; looking for a file may be answered from an old
        # memory of its absence.
        if paths.result_pickle in paths.folder.glob("*_result.pkl"):
            outcome, result = pickle.loads(paths.result_pickle.read_bytes())
            if outcome == "success":
                # Pre-empted: where Slurm queues the job again, it is not over, and nobody else must
                # take it up.
                waits = result == EXIT_SAVED and under_way.asked is None and not lost
                return None if waits else int(result)
            _append(under_way.log, str(result))
            return 1
        if lost:
            said = under_way.job.stderr() or ""
            _append(under_way.log, "\n".join(said.splitlines()[-TAIL:]))
            return -signal.SIGKILL
        return None


def _append(log: Path, text: str) -> None:
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in text.splitlines())


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise MissingExtraError("the engine slurm", "slurm") from None
    logging.getLogger("submitit").setLevel(
        logging.ERROR
    )  # it would write into the sweep's own lines
    return submitit


class _Commands:
    """A cluster, by Slurm's own commands."""

    pause = RESULTS

    def __init__(self, submitit: Any) -> None:
        self._submitit = submitit
        self._queue: dict[str, str] = {}
        self._looked = float("-inf")
        self._seen: dict[str, float] = {}
        if shutil.which("srun") is None:
            raise EngineError(
                "there is no Slurm here: `srun` is not found. Call `rpat sweep` on a login node "
                "of the cluster, or "
                "choose another engine with --engine."
            )

    def submit(self, section: SlurmSection, name: str, folder: Path, attempt: Attempt) -> Any:
        executor = self._submitit.SlurmExecutor(folder, max_num_timeout=section.requeues)
        executor.update_parameters(**_parameters(section, name))
        try:
            return executor.submit(attempt)
        except (RuntimeError, OSError) as error:  # submitit's own errors are RuntimeErrors
            raise EngineError(f"Slurm does not take the job: {str(error).strip()}") from error

    def queued(self) -> Mapping[str, str]:
        self._look(must=True)
        return self._queue

    def lost(self, under_way: _UnderWay) -> bool:
        self._look(must=False)
        job_id = under_way.job.job_id
        if job_id in self._queue.values():
            return False
        patience = PATIENCE if under_way.asked is None else 0.0
        return self._looked - max(under_way.since, self._seen.get(job_id, 0.0)) > patience

    def stop(self, under_way: _UnderWay, *, force: bool) -> None:
        # While it waits it is taken from the queue; when it runs it is only sent the signal, and
        # has time to save.
        how = "KILL" if force else "TERM"
        for options in (["--state=PENDING"], ["--state=RUNNING", f"--signal={how}"]):
            subprocess.run(
                ["scancel", *options, under_way.job.job_id], check=False, capture_output=True
            )
        self._looked = float("-inf")  # what has only waited is gone now

    def _look(self, *, must: bool) -> None:
        """Read the queue, if it was read long ago. Raises `EngineError` if it `must` be read and
        cannot."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %j"]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            if must:
                said = getattr(error, "stderr", None) or str(error)
                raise EngineError(
                    f"Slurm's queue cannot be read: {said.strip()}. Call again when it works."
                ) from error
            return
        self._looked = now
        self._queue = {
            name: job_id
            for job_id, _, name in (line.partition(" ") for line in done.stdout.splitlines())
        }
        self._seen.update(dict.fromkeys(self._queue.values(), now))


def _parameters(section: SlurmSection, name: str) -> dict[str, Any]:
    """The settings as submitit's `SlurmExecutor` calls them."""
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
        "job_name": name,
        "dependency": "singleton",  # never two jobs of one name at once, whoever has submitted them
        "time": section.time,
        "signal_delay_s": section.grace,
        "cpus_per_task": section.cpus,
        "additional_parameters": {"requeue": True, **section.sbatch},
    }


class _Here:
    """This machine in place of a cluster, by submitit's local executor: nothing is queued,
    everything starts at once.

    A job of an earlier call is not taken over, but waited for: it holds its folder's lock.
    """

    pause = 0.0

    def __init__(self, submitit: Any) -> None:
        self._submitit = submitit

    def submit(self, section: SlurmSection, name: str, folder: Path, attempt: Attempt) -> Any:
        shutil.rmtree(
            folder, ignore_errors=True
        )  # jobs are named by their processes' ids, which come again
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

    def lost(self, under_way: _UnderWay) -> bool:
        return bool(under_way.job.done())

    def stop(self, under_way: _UnderWay, *, force: bool) -> None:
        process = lock_of(under_way.log).read_text()
        if force and process:
            kill_group(int(process))
        else:
            with suppress(ProcessLookupError):
                os.kill(int(under_way.job.job_id), signal.SIGTERM)
