"""Ray: each trial is a task that asks for cores and GPUs (Ray's core only, extra `ray`).

On a cluster that runs already, by its address, or on one that is started on this machine and ends
with the sweep. The nodes must share the file system that the sweep's folder is on, and have the
same Python environment at the same place. If the sweep is killed, Ray ends its trials; the next
call goes on from their checkpoints.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIG_IGN, SIGKILL, SIGTERM, getsignal, raise_signal
from typing import Any, Literal

from pydantic import Field

from rpat_cli.errors import EngineError, MissingExtraError
from rpat_cli.sweep.engines.base import Ended, EngineSection, Job
from rpat_cli.sweep.engines.local import usable_cores, visible_gpus
from rpat_cli.sweep.engines.node import Work, exclusive, interrupts, run_until_cancelled, threads

OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for a Ray that we start: exit codes are all that goes through it, and this
is Ray's least."""


class RaySection(EngineSection):
    """A Ray cluster, or a Ray started for the sweep. Each trial is a task that asks for its share
    of the nodes."""

    name: Literal["ray"] = Field("ray", description="trials are tasks of a Ray cluster")
    address: str | None = Field(
        None, description="a running cluster: auto, or host:port; without, one is started here"
    )
    cpus: float = Field(1, gt=0, description="cores for each trial")
    gpus: float | None = Field(
        None, ge=0, description="GPUs for each trial, 0.5 for two on one (default: 1 if any)"
    )
    resources: dict[str, float] = Field(
        {}, description="other resources of the cluster that each trial asks for"
    )

    def slots(self, jobs: int | None) -> int:
        """Of a cluster that runs elsewhere nothing is known before we are there: 1 then, unless
        `jobs` say more."""
        if self.address is not None:
            return jobs or self.jobs or 1
        return (
            jobs
            or self.jobs
            or max(1, self.fit({"CPU": usable_cores(), "GPU": len(visible_gpus())}))
        )

    def start(self, jobs: int | None) -> "Ray":
        return Ray(self, jobs or self.jobs)

    def fit(self, there: Mapping[str, float]) -> int:
        """How many trials such resources hold at once."""
        asked = self.asked(there)
        return min(int(there.get(name, 0) / amount) for name, amount in asked.items() if amount)

    def asked(self, there: Mapping[str, float]) -> dict[str, float]:
        """What a trial asks for, by Ray's names."""
        gpus = (1 if there.get("GPU") else 0) if self.gpus is None else self.gpus
        return {"CPU": self.cpus, "GPU": gpus, **self.resources}


class Ray:
    """Runs each job as a task. Ray itself chooses the node, and tells the trial its GPUs by
    CUDA_VISIBLE_DEVICES."""

    def __init__(self, section: RaySection, jobs: int | None) -> None:
        self._ray = _connect(section.address)
        there = self._ray.cluster_resources()
        self.slots = jobs or section.fit(there)
        if not self.slots:
            raise EngineError(
                f"a trial asks for {_shown(section.asked(there))}; the Ray cluster has "
                f"{_shown(there)}. Ask for less "
                "in the section `engine`, or say with `jobs` how many trials to run if the "
                "cluster grows by itself."
            )
        asked = section.asked(there)
        cpus, gpus = asked.pop("CPU"), asked.pop("GPU")
        self._task = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            resources=asked,
            max_retries=0,  # the sweep decides what is run again
        )(run_until_cancelled)
        # Where no GPU is asked for, Ray may leave those of the node in sight.
        hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        self._env = {**threads(max(1, int(section.cpus))), **hidden}
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
        return [
            Ended(name, self._exit_code(ref, work))
            for ref in done
            for name, work in [self._running.pop(ref)]
        ]

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
            with suppress(OSError), work.log.open("a", encoding="utf-8") as file:
                file.write(f"{error}\n")
            return -SIGKILL


def _connect(address: str | None) -> Any:
    """Ray, quiet, on the cluster at `address`; without one as `RAY_ADDRESS` says, or else started
    here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise MissingExtraError("the engine ray", "ray") from None
    if ray.is_initialized():
        return ray
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        with interrupts() as heard:  # an exception in the middle of its beginning makes Ray crash
            if where == "local":
                cores, gpus = usable_cores(), len(visible_gpus())
                quiet |= {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
                ray.init("local", num_cpus=cores, num_gpus=gpus, **quiet)
            else:
                _knock(where)
                ray.init(where, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).rstrip(".")
        raise EngineError(
            f"there is no Ray cluster at {where!r}: {reason}. Start one with `ray start --head`, "
            "or leave the address "
            "out to have one started for this sweep."
        ) from error
    meant = [
        number for number in heard if getsignal(number) != SIG_IGN
    ]  # not a Ctrl-C at a sweep in the background
    if meant:
        ray.shutdown()
        raise_signal(meant[0])
    return ray


def _knock(address: str) -> None:
    """Ray would try for minutes. Raises `OSError` at once if nobody answers at host:port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _shown(resources: Mapping[str, float]) -> str:
    named = [
        f"{name} {amount:g}"
        for name, amount in resources.items()
        if name in ("CPU", "GPU") or ":" not in name
    ]
    return ", ".join(item for item in named if "memory" not in item)
