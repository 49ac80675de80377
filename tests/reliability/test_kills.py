"""SIGKILL at random moments, and at every single write: whoever calls again ends with what an
undisturbed run has, bit for bit, and nothing is left over.

Short by default. `RPAT_REPEATS=N` kills N times as often, in all configurations; `RPAT_SEED`
says at which moments.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from killing import BASE, CONFIGS, leftovers, train

from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS
from rpat_cli.methods.declare import Frozen, TrainedAlong
from rpat_cli.recipe.layers import Layer, resolve

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

REPEATS = int(os.environ.get("RPAT_REPEATS", "1"))
SEED = int(os.environ.get("RPAT_SEED", "0"))
WRITES = 36
"""About as many as a training makes that averages weights, with its evaluation and report."""


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def killed(folder: Path, what: str, config: str, places: list[str]) -> list[dict[str, Any]]:
    """What `killing.py` found for each place."""
    return found_by(str(folder), what, config, *places, timeout=120 + 120 * len(places))


def found_by(*arguments: str, timeout: float) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
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


NORMS = {"Linf": 0.1, "L2": 1.5, "L1": 10.0}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"wa": {"decay": 0.9, "start_epoch": 0}},
    {"awp": True},
    {"mix": "cutmix"},
)


def every_training(teacher: Path) -> dict[tuple[str, bool], list[dict[str, Any]]]:
    """For every method without and with `ra`, the recipes that are allowed: norms, and what goes
    with a method. `teacher` is the run of those that learn from another one."""
    allowed: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for name, ra, norm, variant in product(METHODS, [False, True], NORMS, VARIANTS):
        method = {"name": name}
        for key, network in getattr(METHODS[name](), "networks", {}).items():
            if isinstance(network, Frozen):
                method[key] = str(teacher)
            elif isinstance(network, TrainedAlong):
                method[key] = "small-cnn"
        threat = {"norm": norm, "eps": NORMS[norm]}
        keys = {"method": method, "ra": ra or None, "threat": threat, **variant}
        if name == "noise":
            keys["attack"] = {}  # which takes no steps
        try:
            resolve([Layer("test", {**BASE, **keys})])
        except ConfigError:
            assert variant, keys  # each is defined by itself
            continue
        allowed.setdefault((name, ra), []).append(keys)
    assert set(allowed) == set(product(METHODS, [False, True]))
    for variant in VARIANTS:
        assert any(keys.items() >= variant.items() for each in allowed.values() for keys in each)
    return allowed


@pytest.mark.slow
def test_every_method_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """At a random moment, in a random norm, with a random collaborator: the short form some of the
    methods, the long form all of them, `RPAT_REPEATS` - 1 times."""
    generator = random.Random(SEED + 6)
    teacher = tmp_path / "teacher"
    train("pgd", teacher)
    allowed = every_training(teacher)
    chosen = list(allowed) * (REPEATS - 1) or generator.sample(list(allowed), 6)
    trainings = [
        (json.dumps(generator.choice(allowed[which])), f"t{generator.uniform(0.02, 0.98):.3f}")
        for which in chosen
    ]
    (tmp_path / "trainings.json").write_text(json.dumps(trainings))
    arguments = (str(tmp_path), "many", str(tmp_path / "trainings.json"))
    every = found_by(*arguments, timeout=120 + 120 * len(trainings))
    for training, found in zip(trainings, every, strict=True):
        assert found["end"] == 0, (training, found)
        assert found["differing"] == found["leftovers"] == [], (training, found)
    assert sum(found["killed"] for found in every) > len(every) / 2


@pytest.mark.slow
def test_an_evaluation_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    generator = random.Random(SEED + 2)
    writes = [f"w{generator.randint(1, 14)}" for _ in range(REPEATS)]
    shares = [f"t{generator.uniform(0.3, 0.98):.3f}" for _ in range(2 * REPEATS)]
    found = killed(tmp_path, "eval", "pgd", ["w10", *writes, *shares])
    assert_nothing_lost(found)


@pytest.mark.slow
def test_an_audit_that_is_killed_ten_times_ends_with_the_same_flags_and_bound(
    tmp_path: Path,
) -> None:
    """`best` and the audit after it: stages, and a sample that depends on their results."""
    generator = random.Random(SEED + 4)
    every = [moments(generator, 10) for _ in range(REPEATS)]
    found = killed(tmp_path, "audit", "pgd", every)
    assert_nothing_lost(found)
    assert all(each["killed"] == 10 for each in found)


def moments(generator: random.Random, times: int) -> str:
    """So many in a row, each a number of writes or a share of the time after the one before."""
    by_write = [f"w{generator.randint(1, 6)}" for _ in range(times // 2)]
    by_time = [f"t{generator.uniform(0.02, 0.1):.3f}" for _ in range(times - len(by_write))]
    both = [*by_write, *by_time]
    generator.shuffle(both)
    return "+".join(both)


AUDIT = "--attack best --audit 10 --eps 0.05 --limit 100 --batch-size 5 --jobs 2 --quiet"


@pytest.mark.slow
@pytest.mark.skipif(REPEATS < 2, reason="the long form: RPAT_REPEATS=2 or more")
def test_the_command_with_its_true_budgets_killed_ten_times(tmp_path: Path) -> None:
    """As users have it: killed with its workers at work, and the same command again."""
    rpat = [sys.executable, "-m", "rpat_cli"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.DEVNULL}
    train = "train --method pgd --epochs 3 --set attack.steps=3 --eval clean --quiet --out killed"
    subprocess.run([*rpat, *train.split()], check=True, timeout=600, **options)
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    subprocess.run([*rpat, "eval", "whole", *AUDIT.split()], check=True, timeout=900, **options)
    generator = random.Random(SEED + 5)
    store = tmp_path / "killed" / "evals" / "partial"
    kills = 0
    for _ in range(10):
        process = subprocess.Popen([*rpat, "eval", "killed", *AUDIT.split()], **options)
        wanted = chunks_in(store) + generator.randint(0, 4)
        while process.poll() is None and chunks_in(store) < wanted:
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 1.5))
        kills += process.poll() is None
        process.kill()
        process.wait()
    subprocess.run([*rpat, "eval", "killed", *AUDIT.split()], check=True, timeout=900, **options)
    assert kills == 10
    whole, killed = (audited(tmp_path / name) for name in ("whole", "killed"))
    assert whole["audit"]["sampled"] > 0
    assert killed == whole
    assert leftovers(tmp_path / "killed") == []


def chunks_in(store: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in store.glob("*.jsonl"))


def audited(run: Path) -> dict[str, Any]:
    """The flags of every attack, and the bound."""
    records = [json.loads(path.read_text()) for path in (run / "evals").glob("*.json")]
    (record,) = [record for record in records if len(record["results"]) == 2]
    flags = [result["correct_after"] for result in record["results"]]
    return {"flags": flags, "audit": record["results"][-1]["audit"]}


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
