"""More images need no more memory: the short form of tests/benchmarks/memory_of_data.py."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from rpat_cli.diagnostics.verdict.probe import gather
from tests.benchmarks.memory_of_data import TASKS, peak_mb, write_jpegs

RESET = Path("/proc/self/clear_refs")


def peak_of(task: Callable[..., None], root: Path) -> float:
    """MB; the peak of this process is reset before."""
    gc.collect()
    RESET.write_text("5")
    task(root, memory_budget_gb=0, workers=0)
    return peak_mb()


@pytest.mark.skipif(not RESET.exists(), reason="Linux tells the peak and can reset it")
def test_twice_as_many_files_need_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float32, the further 2,000 images would take 98 MB, as bytes 25 MB."""
    monkeypatch.setitem(gather.__kwdefaults__, "substitute_queries", 100)
    roots = [write_jpegs(tmp_path / str(count), count) for count in (100, 2000, 4000)]
    for name, task in TASKS.items():
        peak_of(task, roots[0])  # what is allocated once, whatever the images
        once, twice = (peak_of(task, root) for root in roots[1:])
        assert twice - once < 20, f"{name}: {once:.0f} MB, then {twice:.0f} MB"
