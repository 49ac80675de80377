"""Which training a launcher has begun: torchrun starts its processes again when one has died, with
the same command, and they shall go on with their run.

The launchers (one on each machine) are noted in the run's folder. If a machine is lost, those of
the others still find it.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rpat_cli.records.files import write_whole
from rpat_cli.records.regular import read_regular
from rpat_cli.records.run_folder import RUNS, RunFolder, is_run


def launcher() -> str:
    """The process that has started this one, so that no other has the same name: its machine, id
    and time of start."""
    parent = os.getppid()
    return f"{socket.gethostname()} {parent} {_start_of(parent)}"


def note(folder: RunFolder, launchers: Iterable[str]) -> None:
    """The run in this folder is theirs."""
    write_whole(folder.launchers, json.dumps(sorted(set(launchers))))


def forget(folder: RunFolder) -> None:
    """The training is over: whoever is started again by the same launcher begins another."""
    with suppress(OSError):
        folder.launchers.unlink(missing_ok=True)


def begun_by(launchers: Iterable[str], out: Path | None) -> RunFolder | None:
    """The run, in `out` or under `runs/`, that one of them has begun; None if there is none."""
    wanted = set(launchers)
    places = [out] if out is not None else sorted(RUNS.glob("*"))
    for folder in map(RunFolder, places):
        if is_run(folder.path) and wanted & _noted(folder):
            return folder
    return None


def _noted(folder: RunFolder) -> set[str]:
    try:
        return set(json.loads(read_regular(folder.launchers)))
    except (OSError, ValueError, TypeError):  # none, or not ours
        return set()


def _start_of(process: int) -> str:
    """When a process began, in whatever form the system says it."""
    try:
        # The name of the program, in parentheses, may hold spaces; field 22 is the start.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        command = ["ps", "-o", "lstart=", "-p", str(process)]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
            return done.stdout.strip()
    return ""
