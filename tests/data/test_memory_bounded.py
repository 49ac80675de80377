"""More images need no more memory: the short form of tests/benchmarks/memory_of_data.py."""

from pathlib import Path

import pytest

from tests.benchmarks.memory_of_data import TASKS, measured, write_jpegs


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_twice_as_many_files_need_no_more_memory(tmp_path: Path) -> None:
    """As float32, the further 2,000 images would take 98 MB, as bytes 25 MB."""
    once, twice = (
        measured("all", str(write_jpegs(tmp_path / str(count), count))) for count in (2000, 4000)
    )
    more = {name: twice[name] - once[name] for name in TASKS}
    assert max(more.values()) < 15, more


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory")
def test_200_epochs_leave_nothing_behind(tmp_path: Path) -> None:
    found = measured("epochs", str(tmp_path))
    assert len(found) == 200
    assert found[-1] - found[19] < 20
