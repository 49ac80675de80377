"""Memory that tensors leave is kept for the next ones, where the C library can do that."""

import os
import platform
import subprocess
import sys

import pytest

PAGES_ASKED_FOR = """
import resource
import numpy as np
{before}
def work():
    blocks = [np.ones(1 << 19, dtype=np.float32) for _ in range(64)]  # 2 MiB each
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

KEEP = "from rpat_cli.hardware import keep_freed_memory; keep_freed_memory()"


def pages(before: str = "", **variables: str) -> int:
    """How often the process had to ask the system for a page, in five rounds of 128 MiB."""
    code = PAGES_ASKED_FOR.format(before=before)
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")
def test_freed_memory_is_used_again() -> None:
    without, kept = pages(), pages(KEEP)
    # Five times 32,768 pages of 4 KiB, less a part that glibc keeps by itself.
    assert without > 30_000
    assert kept < without / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")
def test_what_the_user_has_set_stays() -> None:
    assert pages(KEEP, MALLOC_TRIM_THRESHOLD_="131072") > 30_000


def test_nothing_happens_without_such_an_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    from rpat_cli.hardware import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()
