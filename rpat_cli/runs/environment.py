"""What a result depends on besides the recipe."""

import os
import platform
import subprocess
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rpat_cli.version import __version__

PACKAGE = Path(__file__).resolve().parents[1]


def environment() -> dict[str, Any]:
    """Versions, machine, threads, ranks and time, and the git commit of rpat itself, with "-dirty"
    where its files differ from it; None where rpat is not run from its repository."""
    return {
        "rpat": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        # How sums are divided among threads decides how they are rounded.
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "ranks": dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


@cache
def _commit() -> str | None:
    """Asked once: a commit made during a training is not what the training runs."""
    # An installed copy may lie in somebody else's repository, which does not track it.
    if not _git("ls-files", "--error-unmatch", "version.py"):
        return None
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if _git("status", "--porcelain", "--", ".") else commit


def _git(*arguments: str) -> str:
    """What git answers about the folder of rpat; empty if it cannot."""
    # Variables such as GIT_DIR, which git sets for its hooks, would lead to another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    try:
        answer = subprocess.run(
            command, cwd=PACKAGE, env=clean, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return answer.stdout.strip()


@cache
def _cpu() -> str | None:
    """The model of the processor, such as "AMD EPYC 7B13"; None where it cannot be found."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip() or None
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine() or None
