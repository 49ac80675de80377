"""Ray: each trial is a task that requests cores and GPUs (Ray's core only, extra `ray`).

It runs on an existing cluster, by its address, or on one that is started on this machine and ends
with the sweep. The nodes must share the file system of the sweep's folder, and have the same Python
environment at the same path. If the sweep is killed, Ray ends its trials; the next call resumes
them from their checkpoints.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIG_IGN, SIGKILL, SIGTERM, getsignal, raise_signal
from typing import Any, Literal

from pydantic import Field

from rpat_cli.errors import EngineError, MissingExtraError, RunFolderError
from rpat_cli.records.files import appending
from rpat_cli.signals import interrupts
from rpat_cli.sweep.engines.base import Ended, EngineSection, Job
from rpat_cli.sweep.engines.local import usable_cores, visible_gpus
from rpat_cli.sweep.engines.node import Work, exclusive, run_until_cancelled, shared_by

OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for a Ray that we start: only exit codes pass through it, and this is the
minimum that Ray accepts."""


class RaySection(EngineSection):
    """A Ray cluster, or a Ray started for the sweep: each trial is a task that requests its share
    of the nodes."""

    name: Literal["ray"] = Field("ray", description="trials are tasks of a Ray cluster")
    address: str | None = Field(
        None, description="a running cluster: auto, or host:port (default: start one here)"
    )
    cpus: float = Field(1, gt=0, description="cores for each trial")
    gpus: float | None = Field(
        None, ge=0, description="GPUs for each trial, 0.5 for two on one (default: 1 if any)"
    )
    resources: dict[str, float] = Field(
        {}, description="other resources of the cluster that each trial requests"
    )

    @property
    def code(self) -> dict[str, Any]:
        """A cluster runs what it likes in the processes that it talks to."""
        return {} if self.address in (None, "auto") else {"address": self.address}

    def slots(self, jobs: int | None) -> int:
        """1 for a cluster that runs elsewhere, unless `jobs` is given: its size is not known before
        we connect."""
        if jobs or self.jobs:
            return jobs or self.jobs or 1
        if self.address is not None:
            return 1
        return max(1, self.capacity({"CPU": usable_cores(), "GPU": len(visible_gpus())}))

    def start(self, jobs: int | None) -> "Ray":
        return Ray(self, jobs or self.jobs)

    def capacity(self, available: Mapping[str, float]) -> int:
        """How many trials fit on the available resources at once."""
        requested = self.request(available)
        fits = [available.get(name, 0) / amount for name, amount in requested.items() if amount]
        return int(min(fits))

    def request(self, available: Mapping[str, float]) -> dict[str, float]:
        """The resources of one trial, by Ray's names."""
        gpus = self.gpus
        if gpus is None:
            gpus = 1 if available.get("GPU") else 0
        return {"CPU": self.cpus, "GPU": gpus, **self.resources}


class Ray:
    """Runs each job as a task. Ray itself chooses the node, and passes the trial its GPUs in
    CUDA_VISIBLE_DEVICES."""

    def __init__(self, section: RaySection, jobs: int | None) -> None:
        self._ray = _connect(section.address)
        available = self._ray.cluster_resources()
        requested = section.request(available)
        self.slots = jobs or section.capacity(available)
        if not self.slots:
            raise EngineError(
                f"a trial requests {_shown(requested)}; the Ray cluster has {_shown(available)}. "
                "Request less in the section `engine`, or set `jobs` to the number of trials if "
                "the cluster scales up by itself."
            )
        cpus, gpus = requested.pop("CPU"), requested.pop("GPU")
        self._task = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            resources=requested,
            max_retries=0,  # the sweep decides what is run again
        )(run_until_cancelled)
        # Where no GPU is requested, Ray may leave those of the node visible.
        hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        ranks = section.ranks or max(1, int(gpus))
        self._env = {**shared_by(ranks, int(section.cpus)), **hidden}
        self._running: dict[Any, tuple[str, Work]] = {}
        self._forced: set[Any] = set()

    def submit(self, job: Job) -> bool:
        with exclusive(job.log) as lock:
            if lock is None:
                return False
            work = Work(job.prepare(), job.log.resolve(), self._env, Path.cwd())
            work.end_at_once.unlink(missing_ok=True)
        self._running[self._task.remote(work)] = (job.name, work)
        return True

    def poll(self) -> list[Ended]:
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        ended = []
        for ref in done:
            name, work = self._running.pop(ref)
            ended.append(Ended(name, self._exit_code(ref, work)))
        return ended

    def cancel(self, name: str, *, force: bool = False) -> None:
        for ref, (running, work) in self._running.items():
            if running == name:
                if force:
                    self._forced.add(ref)
                    work.end_at_once.touch()
                self._ray.cancel(ref)

    def _exit_code(self, ref: Any, work: Work) -> int:
        errors = self._ray.exceptions
        try:
            return int(self._ray.get(ref))
        except errors.TaskCancelledError:
            return -SIGKILL if ref in self._forced else -SIGTERM
        except errors.RayError as error:  # its worker or its node is gone
            with suppress(OSError, RunFolderError), appending(work.log) as file:
                file.write(f"{error}\n")
            return -SIGKILL


def _connect(address: str | None) -> Any:
    """Ray, without its log output, on the cluster at `address`, or else at `RAY_ADDRESS`, or else
    started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
    try:
        import ray
    except ImportError:
        raise MissingExtraError("the engine ray", "ray") from None
    if ray.is_initialized():
        return ray
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        with interrupts() as received:  # an exception during its startup makes Ray crash
            if where == "local":
                cores, gpus = usable_cores(), len(visible_gpus())
                quiet |= {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
                ray.init("local", num_cpus=cores, num_gpus=gpus, **quiet)
            else:
                _check_reachable(where)
                ray.init(where, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).rstrip(".")
        raise EngineError(
            f"there is no Ray cluster at {where!r}: {reason}. Start one with `ray start --head`, "
            "or leave out the address to have one started for this sweep."
        ) from error
    # Not a Ctrl-C in the terminal of a sweep that runs in the background, where it is ignored.
    for_us = [number for number in received if getsignal(number) != SIG_IGN]
    if for_us:
        ray.shutdown()
        raise_signal(for_us[0])
    return ray


def _check_reachable(address: str) -> None:
    """Raises `OSError` at once if host:port does not answer; Ray would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _shown(resources: Mapping[str, float]) -> str:
    """`CPU 4, GPU 1`; left out are memory, and the node names that Ray counts as resources."""
    named = {name: amount for name, amount in resources.items() if ":" not in name}
    shown = [f"{name} {amount:g}" for name, amount in named.items() if "memory" not in name]
    return ", ".join(shown)
