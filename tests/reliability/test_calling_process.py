"""The process that calls rpat from Python comes out as it went in, and what is set in it changes no
figure."""

import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rpat_cli as rpat
from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, RpatError

TINY: dict[str, Any] = {
    "method": "pgd",
    "epochs": 1,
    "attack": {"steps": 1},
    "validation": {"steps": 1},
    "data": {"val_size": 100},
    "eval": "clean",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rpat.train(out=tmp_path_factory.mktemp("runs") / "run", **TINY).path


def robust(target: Any, **keys: Any) -> list[int]:
    evaluation, _ = rpat.evaluate(target, "clean,pgd-3", limit=30, **keys)
    return [result.accuracy.correct for result in evaluation.results]


def state() -> dict[str, Any]:
    root = logging.getLogger()
    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (2, 10, 15)],
        "autocast": torch.is_autocast_enabled("cpu"),
        "stdout": (sys.stdout, sys.stderr, sys.gettrace()),
    }


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_it_comes_out_as_it_went_in(run: Path, tmp_path: Path) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    warnings.simplefilter("error", FutureWarning)
    before = state()
    rpat.load_model(run)
    assert state() == before
    robust(run)
    assert state() == before
    rpat.train(out=tmp_path / "run", **TINY)
    assert state() == before
    with pytest.raises(RpatError):
        rpat.evaluate(tmp_path / "none", "clean")
    assert state() == before


CONTEXTS = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


TRAINED = ("float64", "meta", "inference mode")


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_is_set_in_it_changes_no_figure(run: Path, tmp_path: Path, context: str) -> None:
    expected, weights = robust(run), rpat.load_model(run, "last").model.state_dict()
    with CONTEXTS[context]():
        before = state()
        assert robust(run) == expected
        folder = rpat.train(out=tmp_path / "again", **TINY) if context in TRAINED else run
        model = rpat.load_model(folder, "last").model
        assert state() == before
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("context", ["inference mode", "no grad", "autocast"])
def test_a_model_in_memory_is_as_robust_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = rpat.load_model(run).model
    expected = robust(model, data="fashion-mini")
    with CONTEXTS[context]():
        assert robust(model, data="fashion-mini") == expected


def test_a_model_made_in_inference_mode_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        with pytest.raises(RpatError, match="made under torch.inference_mode"):
            rpat.evaluate(model, "pgd-2", data="fashion-mini", limit=10)


def test_an_attack_called_there_finds_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    x, y = torch.rand(6, 3, 4, 4), torch.arange(6) % 4
    attack = ATTACKS["pgd"](Threat("Linf", 0.1), steps=3, start="zero")
    expected = attack(model, x, y)
    with torch.inference_mode():
        assert torch.equal(attack(model, x.clone(), y.clone()), expected)


@pytest.mark.parametrize("limit", [-5, 0, "10", 10.5, True])
def test_a_limit_is_checked_as_on_the_command_line(run: Path, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit: .* whole number, at least 1"):
        rpat.evaluate(run, "clean", limit=limit)


@pytest.mark.parametrize("jobs", [0, -1, "two", 1.5, None])
def test_so_is_the_number_of_jobs(run: Path, jobs: Any) -> None:
    with pytest.raises(ConfigError, match="jobs: .* whole number, 'auto'"):
        rpat.evaluate(run, "clean", jobs=jobs)


@pytest.mark.parametrize("attack", [None, 5, ["pgd-2", 3]])
def test_so_is_the_suite(run: Path, attack: Any) -> None:
    with pytest.raises(ConfigError, match="attack: must be text"):
        rpat.evaluate(run, attack)


def test_the_folder_that_train_returns_is_taken_everywhere(tmp_path: Path) -> None:
    folder = rpat.train(out=tmp_path / "run", **TINY | {"method": "standard"})
    assert Path(folder) == folder.path
    assert rpat.evaluate(folder, "clean", limit=10)[0].n == 10
    assert rpat.load_model(folder).epoch == 1


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (lambda x: x, "the function '<lambda>'"),
        ([1], "type list"),
        (nn.Linear, "the class Linear"),
        (5, "type int"),
    ],
)
def test_what_cannot_be_a_target_is_named(target: Any, word: str) -> None:
    with pytest.raises(ConfigError, match="evaluate.*cannot take") as raised:
        rpat.evaluate(target, "clean", data="fashion-mini")
    assert word in str(raised.value)
    with pytest.raises(ConfigError, match="cannot take"):
        rpat.load_model(target)


SCRIPT = """
import sys
import rpat_cli as rpat
print("imported", file=sys.stderr)
{line}
"""


def started(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(line=line))
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_an_unguarded_script_is_told_what_to_do_and_trains_once(tmp_path: Path) -> None:
    lines = f"""
folder = rpat.train(out="run", **{TINY | {"method": "standard"}!r})
rpat.evaluate(folder, "clean,pgd-2", limit=300, jobs=2)
"""
    done = started(tmp_path, lines)
    last = " ".join(done.stderr.strip().splitlines()[-1].split())
    assert done.returncode == 1
    assert 'below `if __name__ == "__main__":`, or use jobs=1' in last
    assert "script.py" in last
    assert done.stderr.count("Traceback") == 1
