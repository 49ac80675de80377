"""`rpat train --ranks N`: the short form of `torchrun --standalone --nproc-per-node N -m rpat_cli
train`, by torchrun's own agent. Importing this imports torch."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from rpat_cli.cli.torchrun import EXIT_FILE, number_in
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.runs.threads import share_of_cores
from rpat_cli.signals import exit_code
from rpat_cli.text import counted

SHUTDOWN = 600
"""Seconds that the ranks have after a signal to end their step and save."""


def check_gpus(gpus: int) -> None:
    """Raises `ConfigError` if this machine has not so many."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > found:
        raise ConfigError(
            f"--gpus {gpus}: this machine has {counted(found, 'GPU')} that torch "
            f"({torch.__version__}) can use. Allowed: up to {found}. To share a training among "
            f"processes on a CPU use --ranks {gpus}."
            if found
            else f"--gpus {gpus}: torch ({torch.__version__}) finds no GPU on this machine. To "
            f"share a training among processes on a CPU use --ranks {gpus}."
        )


def launch(ranks: int) -> int:
    """Run this very command as so many processes, and return with which code it shall exit.

    Raises `RpatError` if rank 0 has not lived to say what has happened.
    """
    # On a CPU the ranks share the cores; whoever sets the number of threads knows better.
    os.environ.setdefault("OMP_NUM_THREADS", str(share_of_cores(ranks)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.CRITICAL)  # what the agent warns of, the ranks or this process say
    with tempfile.TemporaryDirectory(prefix="rpat-") as folder:
        said = Path(folder, "exit-code")
        os.environ[EXIT_FILE] = str(said)
        failures: Mapping[int, ProcessFailure] = {}
        try:
            launch_agent(_config(ranks), sys.executable, ["-m", "rpat_cli", *sys.argv[1:]])
        except ChildFailedError as error:
            failures = error.failures
        except SignalException as error:
            return exit_code(error.sigval)
        except KeyboardInterrupt:
            return exit_code(signal.SIGINT)
        code = int(said.read_text()) if said.exists() else None
    killed = [failure for _, failure in sorted(failures.items()) if failure.exitcode < 0]
    if code is None and failures:
        raise RpatError(_what_happened(killed or list(failures.values())))
    return 1 if killed else code or 0


def _config(ranks: int) -> LaunchConfig:
    # Set by the jobs of a sweep on several nodes, on each of which this runs.
    nodes = number_in("RPAT_NODES")
    settings: dict[str, Any] = {
        "min_nodes": nodes,
        "max_nodes": nodes,
        "nproc_per_node": ranks,
        "run_id": os.environ.get("RPAT_LAUNCH_ID", f"rpat-{os.getpid()}"),
        "rdzv_backend": "c10d",
        "rdzv_endpoint": os.environ.get("RPAT_RENDEZVOUS", "localhost:0"),
        "local_addr": "localhost" if nodes == 1 else None,
        "max_restarts": 0,
    }
    if "shutdown_timeout" in {field.name for field in fields(LaunchConfig)}:  # not in old versions
        settings["shutdown_timeout"] = SHUTDOWN
    return LaunchConfig(**settings)


def _what_happened(failures: list[ProcessFailure]) -> str:
    first = failures[0]
    how = f"has failed with exit code {first.exitcode}"
    if first.exitcode < 0:
        how = f"was killed by {signal.Signals(-first.exitcode).name}"
    return (
        f"the process of local rank {first.local_rank} (id {first.pid}) {how}; the others were "
        "stopped. What was saved is kept: go on with rpat train --resume RUN."
    )
