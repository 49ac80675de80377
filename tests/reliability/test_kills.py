"""SIGKILL at random moments, and at every single write: whoever calls again ends with what an
undisturbed run has, bit for bit, and nothing is left over.

Short by default. `RPAT_REPEATS=N` kills N times as often, in all configurations; `RPAT_SEED`
says at which moments.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from killing import CONFIGS, leftovers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

REPEATS = int(os.environ.get("RPAT_REPEATS", "1"))
SEED = int(os.environ.get("RPAT_SEED", "0"))
WRITES = 36
"""About as many as a training makes that averages weights, with its evaluation and report."""


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def killed(folder: Path, what: str, config: str, places: list[str]) -> list[dict[str, Any]]:
    """What `killing.py` found for each place."""
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), what, config, *places],
        capture_output=True,
        text=True,
        timeout=120 + 120 * len(places),
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def places(seed: int, *, writes: int, times: int) -> list[str]:
    """Numbers of writes, and shares of the time, drawn without overlap."""
    generator = random.Random(seed)
    numbers = generator.sample(range(1, WRITES + 1), min(writes, WRITES))
    shares = [f"t{generator.uniform(0.02, 0.98):.3f}" for _ in range(times)]
    return [*(f"w{number}" for number in sorted(numbers)), *shares]


def assert_nothing_lost(found: list[dict[str, Any]]) -> None:
    assert found
    for each in found:
        assert each["end"] == 0, each
        assert each["differing"] == [], each
        assert each["leftovers"] == [], each
    assert any(each["killed"] for each in found)


@pytest.mark.slow
def test_a_training_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """With an average of the weights: the case in which several checkpoints must agree.

    The writes named are those around the last save of the last epoch, where nothing comes after
    that would mend a file that is one epoch old.
    """
    chosen = places(SEED, writes=2 * REPEATS, times=REPEATS)
    assert_nothing_lost(killed(tmp_path, "train", "averaged", ["w18", "w20", "w22", *chosen]))


@pytest.mark.slow
@pytest.mark.skipif(REPEATS < 2, reason="the long form: RPAT_REPEATS=2 or more")
@pytest.mark.parametrize("config", [name for name in CONFIGS if name != "averaged"])
def test_other_configurations(config: str, tmp_path: Path) -> None:
    chosen = places(SEED + 1, writes=REPEATS, times=REPEATS)
    assert_nothing_lost(killed(tmp_path, "train", config, chosen))


@pytest.mark.slow
def test_an_evaluation_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    generator = random.Random(SEED + 2)
    writes = [f"w{generator.randint(1, 14)}" for _ in range(REPEATS)]
    shares = [f"t{generator.uniform(0.3, 0.98):.3f}" for _ in range(2 * REPEATS)]
    found = killed(tmp_path, "eval", "pgd", ["w10", *writes, *shares])
    assert_nothing_lost(found)


SWEEP = """
recipe: {epochs: 1, batch_size: 500, attack: {steps: 1}, validation: {steps: 1, limit: 50}}
grid: {ra: [false, true]}
eval: clean
"""


@pytest.mark.slow
@pytest.mark.skipif(REPEATS < 2, reason="the long form: RPAT_REPEATS=2 or more")
def test_a_sweep_that_is_killed_ends_with_every_trial(tmp_path: Path) -> None:
    """Killed with all its processes, as a machine that goes down does it."""
    generator = random.Random(SEED + 3)
    (tmp_path / "two.yaml").write_text(SWEEP)
    command = [sys.executable, "-m", "rpat_cli", "sweep", "two.yaml", "--jobs", "1"]
    for _ in range(REPEATS):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(generator.uniform(4, 25))
        _kill_all_of(process.pid)
        process.wait()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    trials = list((tmp_path / "sweeps" / "two" / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        assert leftovers(trial) == []
        assert json.loads((trial / "run" / "report.json").read_text())["results"]


def _kill_all_of(process: int) -> None:
    """The sweep, and its trials, which are in sessions of their own."""
    children = Path(f"/proc/{process}/task/{process}/children")
    for child in children.read_text().split() if children.exists() else []:
        _kill_all_of(int(child))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
