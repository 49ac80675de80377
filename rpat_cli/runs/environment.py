"""What a result depends on besides the recipe."""

import platform
import subprocess
from functools import cache
from typing import Any

import torch

from rpat_cli.version import __version__


def environment() -> dict[str, Any]:
    """Versions, platform, and the git commit of the current folder, None where there is none."""
    return {
        "rpat": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
    }


@cache
def _commit() -> str | None:
    """Asked once: a commit made during a training is not what the training runs."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
