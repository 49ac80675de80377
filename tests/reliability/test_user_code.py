"""What users bring fails as theirs, with file and line; what they print stays out of results; and
only a bug of rpat is called one."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import rpat_cli as rpat
from rpat_cli.attacks.pgd import PGD
from rpat_cli.cli import app
from rpat_cli.errors import Interrupted, UserCodeError
from rpat_cli.models import MODELS
from rpat_cli.recipe import plugins

TINY = (
    *("--method", "standard", "--epochs", "1", "--set", "data.val_size=100"),
    *("--set", "validation.steps=1", "--eval", "clean"),
)
ON_MINI = ("--data", "fashion-mini", "--limit", "20", "--quiet")

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x):
        {line}
        return self.head(x.flatten(1))

def build():
    return Net()
"""

PLUGIN = """
from dataclasses import dataclass
import sys
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from rpat_cli.attacks import ATTACKS
from rpat_cli.data import DATASETS
from rpat_cli.data.base import DatasetSpec
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Outcome
from rpat_cli.methods.declare import Needs
from rpat_cli.models import MODELS

def boom(part):
    if part == "{part}":
        {line}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(784, 10)
    def forward(self, x):
        boom("forward")
        return self.head(x.flatten(1))

def net(channels, image_size, classes):
    boom("model")
    return Net()

@dataclass(frozen=True)
class Method(Needs):
    def __call__(self, step):
        boom("method")
        x_adv = step.attack(step.model, step.x, step.y)
        logits = step.model(x_adv)
        return Outcome({{"ce": cross_entropy(logits, step.y)}}, step.x, x_adv, logits)

@dataclass(frozen=True)
class Regularizer(Needs):
    def __call__(self, step, outcome):
        boom("regularizer")
        return {{"extra": outcome.logits_adv.square().mean()}}

@dataclass(frozen=True)
class Attack:
    threat: object
    def __call__(self, model, x, y):
        boom("attack")
        return x

def load(options):
    boom("data")
    return DATASETS["fashion-mini"].load(options)

def measure(subject):
    boom("diagnostic")

old = DATASETS["fashion-mini"]
MODELS.add("u-net", net)
METHODS.add("u-method", Method)
REGULARIZERS.add("u-extra", Regularizer)
ATTACKS.add("u-attack", Attack)
known = (old.shape, old.classes, old.mean, old.std, old.eps)
DATASETS.add("u-data", DatasetSpec("u-data", *known, load))
DIAGNOSTICS.add("u-look", Diagnostic(measure=measure, read=dict, help="A look."))
boom("import")
"""

TRAIN = ("train", "--plugin", "p.py", *TINY[2:])
EVAL = ("eval", "--plugin", "p.py", "--model-file", "ok.py:build", *ON_MINI)
ROUTES = {
    "import": (*TRAIN, "--method", "standard"),
    "model": (*TRAIN, "--method", "standard", "--model", "u-net"),
    "forward": (*TRAIN, "--method", "standard", "--model", "u-net"),
    "method": (*TRAIN, "--method", "u-method"),
    "regularizer": (*TRAIN, "--method", "standard", "--set", "u-extra=true"),
    "attack": (*TRAIN, "--method", "u-method", "--attack", "u-attack"),
    "attack in evaluation": (*EVAL, "-a", "u-attack"),
    "data": (*TRAIN, "--method", "standard", "--data", "u-data"),
    "diagnostic": (*EVAL, "-a", "clean", "--diagnostic", "u-look"),
}


def run(*arguments: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **extra}
    return subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


class Here:
    """The command line in this process, whose tables are as before afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        for table, _ in plugins.CHECKS:
            monkeypatch.setattr(table, "_entries", dict(table._entries))
        monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
        monkeypatch.setattr(plugins, "_loaded", {})

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["rpat", *arguments])
        with pytest.raises(SystemExit) as leaving:
            app._run()
        said = self._capsys.readouterr()
        return int(leaving.value.code or 0), said.out, " ".join(said.err.split())


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(monkeypatch, capsys)


@pytest.mark.parametrize("line", ["raise ValueError('boom')", "sys.exit(0)"])
@pytest.mark.parametrize("route", ROUTES)
def test_an_error_in_any_part_is_that_parts(
    here: Here, tmp_path: Path, route: str, line: str
) -> None:
    part = route.partition(" ")[0]
    text = PLUGIN.format(part=part, line=line)
    (tmp_path / "p.py").write_text(text)
    (tmp_path / "ok.py").write_text(NET.format(line=""))
    code, out, message = here(*ROUTES[route])
    number = text.splitlines().index(f"        {line}") + 1
    assert code == (2 if (part, line[:5]) == ("import", "raise") else 1), message
    assert f"p.py:{number}" in message, message
    assert ("boom" if "boom" in line else "sys.exit(0)") in message
    assert "bug in rpat" not in message
    assert out == ""


@pytest.mark.parametrize(("jobs", "where"), [("1", "x.requires_grad"), ("2", "parent_process()")])
def test_a_model_that_fails_under_attack(tmp_path: Path, jobs: str, where: str) -> None:
    line = f"if {where}: raise KeyError('boom')"
    text = "from multiprocessing import parent_process" + NET.format(line=line)
    (tmp_path / "my.py").write_text(text)
    arguments = ("--batch-size", "10", "--jobs", jobs, "-a", "pgd-2")
    done = run("eval", "--model-file", "my.py:build", *ON_MINI, *arguments, cwd=tmp_path)
    assert (done.returncode, "bug in rpat" in done.stderr) == (1, False), done.stderr
    assert "my.py:10, in forward: KeyError: 'boom'" in " ".join(done.stderr.split())


LOUD = "def boom(part):\n"
PRINTS = "import os; print('chatter'); os.system('echo chatter'); os.write(1, b'chatter')"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_a_model_prints_never_mixes_with_json(tmp_path: Path, jobs: str) -> None:
    (tmp_path / "my.py").write_text(PRINTS + NET.format(line=PRINTS))
    arguments = ("--json", "--batch-size", "10", "--jobs", jobs, "-a", "clean,pgd-2")
    done = run("eval", "--model-file", "my.py:build", *ON_MINI, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 20
    assert done.stderr.count("chatter") > 6


def test_what_a_plugin_prints_never_mixes_with_json(tmp_path: Path) -> None:
    text = PLUGIN.format(part="", line="pass").replace("def boom(part):", f"{LOUD}    {PRINTS}")
    (tmp_path / "p.py").write_text(text)
    arguments = ("--method", "u-method", "--model", "u-net", "--set", "u-extra=true")
    for last in ((), ("--dry-run",)):
        done = run(*TRAIN, *arguments, *last, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        assert "chatter" in done.stderr


def test_what_a_plugin_prints_stays_out_of_lists(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(PRINTS)
    done = run("eval", "--plugin", "p.py", "-a", "list", cwd=tmp_path)
    assert (done.returncode, "chatter" in done.stdout, "pgd" in done.stdout) == (0, False, True)


def test_ctrl_c_gets_through(tmp_path: Path) -> None:
    line = "open('here', 'w').close(); import time; time.sleep(60)"
    (tmp_path / "my.py").write_text(NET.format(line=line))
    process = subprocess.Popen(
        [sys.executable, "-m", "rpat_cli", "eval", "--model-file", "my.py:build", *ON_MINI],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(600):
        if (tmp_path / "here").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.head, self.error = nn.Linear(784, 10), error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad or len(x) > 1:
            raise self.error
        return self.head(x.flatten(1))


@pytest.mark.parametrize("error", [LookupError("boom"), SystemExit(3), FileNotFoundError("boom")])
def test_in_python_the_error_is_chained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserCodeError, match=r"test_user_code\.py:\d+, in forward: ") as raised:
        rpat.evaluate(Failing(error), "clean", data="fashion-mini", limit=10)
    assert raised.value.__cause__ is error


def test_in_python_a_keyboard_interrupt_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        rpat.evaluate(Failing(KeyboardInterrupt()), "clean", data="fashion-mini", limit=10)


@pytest.mark.parametrize("error", [RuntimeError("boom"), TypeError("boom"), KeyError("boom")])
def test_a_bug_of_rpat_is_called_one(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also where a user's model is being evaluated."""
    scope = {"error": error, "__name__": "rpat_cli.attacks.pgd"}
    code = "def broken(self, *args):\n    raise error\n"
    exec(compile(code, PGD.climb.__code__.co_filename, "exec"), scope)
    monkeypatch.setattr(PGD, "climb", scope["broken"])
    (tmp_path / "my.py").write_text(NET.format(line=""))
    arguments = ("--model-file", "my.py:build", *ON_MINI, "-a", "pgd-2", "--jobs", "1")
    status, _, message = here("eval", *arguments)
    assert (status, "This is a bug in rpat" in message) == (1, True)


def test_what_pip_put_into_a_folder_is_a_library(tmp_path: Path) -> None:
    """`pip install --target FOLDER`, with typer in it: whose exit at the end is not a user's."""
    typer = Path(importlib.util.find_spec("typer").origin).parent  # type: ignore[union-attr, arg-type]
    shutil.copytree(typer, tmp_path / "vendored/typer")
    (tmp_path / "vendored/typer-1.dist-info").mkdir()
    done = run("runs", cwd=tmp_path, PYTHONPATH=str(tmp_path / "vendored"))
    assert done.returncode == 0
    assert "sys.exit" not in done.stderr
