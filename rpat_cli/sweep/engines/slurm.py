"""Slurm: each trial is a job of its own, submitted through submitit (extra `slurm`).

Call `rpat sweep` where `sbatch` works, with the sweep's folder and the Python environment on a file
system that the nodes share. The jobs outlive the sweep: the next call finds them in the queue by
their names and takes them over.

A trial that runs out of time saves a checkpoint, and its job requeues itself, whether or not the
sweep still runs. So does a preempted one, if Slurm is configured to warn it
(`PreemptParameters=send_user_signal`). Otherwise the trial saves too; then either Slurm requeues
the job (`PreemptMode=REQUEUE`), or the sweep submits it again once it has left the queue.

The tests run on one machine, against submitit's local executor and against scripts that imitate
Slurm's commands; they do not cover a cluster of many nodes.
"""

import hashlib
import io
import logging
import os
import pickle
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rpat_cli.errors import MissingExtraError, RunFolderError
from rpat_cli.records.files import appending
from rpat_cli.records.regular import read_regular
from rpat_cli.signals import blocked
from rpat_cli.sweep.engines.base import Ended, EngineSection, Job
from rpat_cli.sweep.engines.node import (
    EXIT_SAVED,
    RANKS,
    Attempt,
    Work,
    exclusive,
    shared_by,
)
from rpat_cli.sweep.engines.slurm_cluster import (
    Cluster,
    SlurmCommands,
    SubmittedJob,
    ThisMachine,
)

TAIL = 5
"""How many of the last lines that Slurm wrote about a lost job are copied to the trial's log."""

CANCEL_INTERVAL = 10.0
"""Seconds after which a job that still runs is asked to stop once more."""


class SlurmSection(EngineSection):
    """A Slurm cluster: each trial is a job; the settings are those of `sbatch`."""

    name: Literal["slurm"] = Field("slurm", description="trials are jobs of a Slurm cluster")
    jobs: int | None = Field(
        100, ge=1, description="trials queued or running at once; --jobs overrides it"
    )
    partition: str | None = Field(None, description="partition of the jobs")
    account: str | None = Field(None, description="account to charge")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that a node needs")
    time: int = Field(
        240, ge=1, description="time limit in minutes; a trial that needs longer is requeued"
    )
    grace: int = Field(
        120, ge=1, description="seconds before the time limit when a trial is asked to save"
    )
    requeues: int = Field(
        20, ge=0, description="how often a trial that runs out of time is requeued"
    )
    nodes: int = Field(1, ge=1, description="nodes for each trial")
    ranks: int | None = Field(
        None,
        ge=1,
        description="processes on each node that share a trial (default: one on each of its GPUs)",
    )
    gpus: int = Field(1, ge=0, description="GPUs on each node of a trial; 0 for none")
    cpus: int = Field(4, ge=1, description="cores on each node of a trial")
    memory: float | None = Field(None, gt=0, description="memory for each trial in GB")
    setup: list[str] = Field(
        [], description="shell commands to run first, such as `module load cuda`"
    )
    sbatch: dict[str, Any] = Field(
        {}, description="further options of sbatch: {nodelist: node7, exclusive: true}"
    )
    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="`local` runs the jobs on this machine, without a queue, to try it out"
    )

    @property
    def code(self) -> dict[str, Any]:
        given = {"setup": self.setup, "sbatch": self.sbatch}
        return {key: value for key, value in given.items() if value}

    def slots(self, jobs: int | None) -> int:
        return jobs or self.jobs or 1

    def start(self, jobs: int | None) -> "Slurm":
        return Slurm(self, self.slots(jobs))


class Slurm:
    """Submits each job to Slurm, and finds the jobs of earlier calls by their names."""

    def __init__(self, section: SlurmSection, slots: int) -> None:
        self.slots = slots
        self._section = section
        self._submitit = _submitit()
        cluster = SlurmCommands if section.cluster == "slurm" else ThisMachine
        self._cluster: Cluster = cluster(self._submitit)
        self._running: dict[str, SubmittedJob] = {}
        self._ended: set[str] = set()  # ids of jobs that may still be listed in the queue
        self._due = 0.0

    def submit(self, job: Job) -> bool:
        """Queue a job, or take over the one that an earlier call has queued for the same folder."""
        log = job.log.resolve()
        folder = log.with_name("slurm")
        name = f"rpat-{job.name}-{hashlib.sha256(os.fsencode(log.parent)).hexdigest()[:8]}"
        job_id = self._cluster.queued().get(name)
        if job_id and job_id not in self._ended:
            slurm_job = self._submitit.SlurmJob(folder, job_id)
        else:
            with exclusive(log) as lock:  # another engine may use the same folder
                if lock is None:
                    return False
                command = job.prepare()
            section = self._section
            ranks = section.ranks or max(1, section.gpus)
            env = shared_by(ranks, section.cpus)
            if section.nodes > 1:
                env[RANKS] = str(ranks)  # also 1: the launchers of the nodes start it
            work = Work(command, log, env, Path.cwd(), section.nodes)
            attempt = Attempt(work, pickle.dumps(job.prepare))
            with blocked(signal.SIGINT):  # Ctrl-C is only for the sweep
                slurm_job = self._cluster.submit(self._section, name, folder, attempt)
        self._running[job.name] = SubmittedJob(slurm_job, log, time.monotonic())
        return True

    def poll(self) -> list[Ended]:
        now = time.monotonic()
        if now < self._due:
            return []
        self._due = now + self._cluster.pause
        ended = []
        for name, submitted in list(self._running.items()):
            code = self._exit_code(submitted)
            if code is not None:
                self._ended.add(self._running.pop(name).handle.job_id)
                ended.append(Ended(name, code))
            elif submitted.asked is not None and now - submitted.asked > CANCEL_INTERVAL:
                self.cancel(name)  # the first request may have come before the job began
        return ended

    def cancel(self, name: str, *, force: bool = False) -> None:
        submitted = self._running[name]
        submitted.asked = time.monotonic()
        self._cluster.stop(submitted, force=force)

    def _exit_code(self, submitted: SubmittedJob) -> int | None:
        """The trial's exit code; None as long as there is none."""
        lost = self._cluster.lost(submitted)  # before the result, which may arrive in between
        paths = submitted.handle.paths
        # Listing a folder asks the file server; a lookup of one file may be answered from a cache
        # that remembers its absence.
        if paths.result_pickle in paths.folder.glob("*_result.pkl"):
            outcome, result = _result_in(paths.result_pickle)
            if outcome == "success":
                # A preempted job that Slurm requeues is not over: the sweep must not submit it too.
                requeued = result == EXIT_SAVED and submitted.asked is None and not lost
                return None if requeued else int(result)
            _append(submitted.log, str(result))
            return 1
        if lost:
            _append(submitted.log, "\n".join(_lines_of(paths.stderr)[-TAIL:]))
            return -signal.SIGKILL
        return None


class _Plain(pickle.Unpickler):
    """Reads plain values alone: a sweep's folder may come from somebody else, and a pickle can call
    anything that it names."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _result_in(path: Path) -> tuple[str, Any]:
    """What a job has left: "success" and its exit code, or "error" and why."""
    try:
        outcome, result = _Plain(io.BytesIO(read_regular(path))).load()
    except Exception as error:  # of the file system, or half a dozen kinds for damaged pickles
        return "error", f"{path} is no result of a trial: {error}"
    if outcome == "success" and not isinstance(result, int):
        return "error", f"{path} is no result of a trial: it holds no exit code"
    return outcome, result


def _lines_of(path: Path) -> list[str]:
    try:
        return read_regular(path).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _append(log: Path, text: str) -> None:
    with suppress(OSError, RunFolderError), appending(log) as file:
        file.writelines(f"{line}\n" for line in text.splitlines())


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise MissingExtraError("the engine slurm", "slurm") from None
    # Its log lines would appear between the sweep's own.
    logging.getLogger("submitit").setLevel(logging.ERROR)
    return submitit
