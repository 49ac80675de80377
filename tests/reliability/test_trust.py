"""What a stranger sent runs no code: files may name code, but only the user starts it.

Every route from a file to a program is tried with a payload that leaves a marker: without an answer
of the user nothing runs and the message says which file wants what, with it the command works.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rpat_cli as rpat
from rpat_cli.cli.app import app
from rpat_cli.errors import ConfigError, DataError
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint

SMALL = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "small-cnn",
    "method": "standard",
    "epochs": 1,
    "eval": ["clean"],
    "validation": {"steps": 1},
}

PAYLOAD = """
import pathlib
from torch import nn
with pathlib.Path({marker!r}).open("a") as file:
    file.write("x")


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


def command(*arguments: Any) -> None:
    """`rpat ...` in this process; its errors are raised."""
    app([str(argument) for argument in arguments], prog_name="rpat", standalone_mode=False)


@pytest.fixture(scope="module")
def honest_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that names no code."""
    return rpat.train(out=tmp_path_factory.mktemp("honest") / "run", **SMALL).path


@dataclass
class Trap:
    """Files that a stranger sent, in a folder of their own, all of which name `payload`."""

    folder: Path
    run: Path
    payload: Path
    marker: Path

    @property
    def best(self) -> Path:
        return self.run / "checkpoints" / "best.pt"

    @property
    def transfer(self) -> str:
        return f"transfer:{self.payload}:build@fgsm"

    def write(self, name: str, content: Any) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path


@pytest.fixture
def trap(honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trap:
    folder = tmp_path / "sent"
    run = folder / "run"
    shutil.copytree(honest_run, run)
    trap = Trap(folder, run, folder / "payload.py", tmp_path / "marker")
    trap.payload.write_text(PAYLOAD.format(marker=str(trap.marker)))
    for file in (run / "checkpoints").glob("*.pt"):
        content = load_checkpoint(file)
        content["recipe"]["plugins"] = [str(trap.payload)]
        save_checkpoint(file, content)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["plugins"] = [str(trap.payload)]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    return trap


def evaluate(target: Any, *more: Any, attack: str = "clean") -> None:
    command("eval", target, "--attack", attack, "--limit", "20", "--quiet", "--jobs", "1", *more)


def a_plain_model(trap: Trap) -> Path:
    """A model of the user's own, to be attacked by what the stranger sent."""
    path = trap.folder.parent / "own.py"
    path.write_text(PAYLOAD.format(marker="/dev/null"))
    return path


def on_own_model(trap: Trap, attack: str, *more: Any) -> None:
    evaluate(f"{a_plain_model(trap)}:build", "--data", "fashion-mini", *more, attack=attack)


def suite(trap: Trap, *more: Any) -> None:
    on_own_model(trap, str(trap.write("suite.yaml", [trap.transfer])), *more)


def suite_of_mappings(trap: Trap, *more: Any) -> None:
    entry = {"attack": trap.transfer, "label": "harmless"}
    on_own_model(trap, str(trap.write("suite.yml", ["clean", entry])), *more)


def train_with(trap: Trap, keys: dict[str, Any], *more: Any) -> None:
    config = trap.write("recipe.yaml", {**SMALL, **keys})
    command("train", "--config", config, "--quiet", "--out", "new", "--jobs", "1", *more)


def extended(trap: Trap, *more: Any) -> None:
    trap.write("base.yaml", {**SMALL, "plugins": "payload.py"})
    train_with(trap, {"extends": "base.yaml"}, "--dry-run", *more)


def sweep(trap: Trap, keys: dict[str, Any], *more: Any) -> None:
    file = trap.write("sweep.yaml", {"recipe": SMALL, "grid": {"batch_size": [100]}, **keys})
    command("sweep", file, "--out", "swept", "--quiet", *more)


def sweep_of_recipes(trap: Trap, *more: Any) -> None:
    trap.write("base.yaml", {**SMALL, "plugins": ["payload.py"]})
    sweep(trap, {"recipe": {}, "config": "base.yaml"}, "--dry-run", *more)


def sweep_over_recipes(trap: Trap, *more: Any) -> None:
    trap.write("base.yaml", {**SMALL, "plugins": ["payload.py"]})
    sweep(trap, {"grid": {"extends": ["base.yaml"]}}, "--dry-run", *more)


ROUTES: dict[str, Callable[..., None]] = {
    "eval RUN": lambda trap, *more: evaluate(trap.run, *more),
    "eval FILE.pt": lambda trap, *more: evaluate(trap.best, *more),
    "eval --check": lambda trap, *more: evaluate(trap.run, "--eps-curve", *more),
    "transfer:RUN": lambda trap, *more: on_own_model(trap, f"transfer:{trap.run}@fgsm", *more),
    "transfer:FILE.pt": lambda trap, *more: on_own_model(trap, f"transfer:{trap.best}", *more),
    "train --resume": lambda trap, *more: command("train", "--resume", trap.run, "-q", *more),
    "train --config": lambda trap, *more: train_with(trap, {"plugins": [str(trap.payload)]}, *more),
    "train --config RUN": lambda trap, *more: command(
        "train", "--config", trap.run / "recipe.yaml", "--dry-run", *more
    ),
    "train --dry-run": lambda trap, *more: train_with(
        trap, {"plugins": ["payload.py"]}, "--dry-run", *more
    ),
    "train extends": extended,
    "train eval: transfer:FILE.py": lambda trap, *more: train_with(
        trap, {"eval": [trap.transfer]}, *more
    ),
    "suite transfer:FILE.py": suite,
    "suite of mappings": suite_of_mappings,
    "sweep --dry-run": lambda trap, *more: sweep(
        trap, {"recipe": {**SMALL, "plugins": ["payload.py"]}}, "--dry-run", *more
    ),
    "sweep of recipes": sweep_of_recipes,
    "sweep over recipes": sweep_over_recipes,
    "sweep --cost": lambda trap, *more: sweep(
        trap, {"recipe": {**SMALL, "plugins": ["payload.py"]}}, "--dry-run", "--cost", *more
    ),
    "load_model": lambda trap, *more: rpat.load_model(trap.run, trust=bool(more)) and None,
    "load_model FILE.pt": lambda trap, *more: rpat.load_model(trap.best, trust=bool(more)) and None,
    "evaluate": lambda trap, *more: (
        rpat.evaluate(trap.run, "clean", limit=20, trust=bool(more)) and None
    ),
    "rpat.train": lambda trap, *more: (
        rpat.train(
            trap.write("recipe.yaml", {**SMALL, "plugins": ["payload.py"]}),
            out="new",
            trust=bool(more),
        )
        and None
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_runs_that_only_a_file_names(trap: Trap, route: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ROUTES[route](trap)
    assert not trap.marker.exists()
    message = str(refused.value)
    assert str(trap.payload) in message  # what
    assert "wants to run" in message
    assert "--trust" in message  # what to do
    assert refused.value.exit_code == 2
    assert not Path("new").exists()
    assert not Path("swept").exists()


@pytest.mark.parametrize("route", ROUTES)
def test_with_the_answer_of_the_user_it_runs(trap: Trap, route: str) -> None:
    ROUTES[route](trap, "--trust")
    assert trap.marker.read_text()


@pytest.mark.parametrize(
    "route", ["eval RUN", "eval FILE.pt", "transfer:RUN", "train --resume", "train --config"]
)
def test_a_plugin_that_the_user_names_runs(trap: Trap, route: str) -> None:
    ROUTES[route](trap, "--plugin", trap.payload)
    assert trap.marker.read_text()


def test_a_plugin_that_the_user_names_runs_in_a_sweep(trap: Trap) -> None:
    ROUTES["sweep --dry-run"](trap, "--plugin", trap.payload)
    assert trap.marker.read_text()


def test_naming_one_file_answers_for_no_other(trap: Trap) -> None:
    other = trap.folder / "other.py"
    other.write_text("")
    for route in ("eval RUN", "train --resume", "train --config"):
        with pytest.raises(ConfigError, match=r"wants to run .*payload\.py"):
            ROUTES[route](trap, "--plugin", other)
    assert not trap.marker.exists()


def test_a_word_after_attack_is_the_users_own(trap: Trap) -> None:
    on_own_model(trap, trap.transfer)
    assert trap.marker.read_text() == "x"


def test_a_model_file_of_the_command_line_may_be_named_in_a_suite_too(trap: Trap) -> None:
    file = trap.write("suite.yaml", [trap.transfer])
    model = ("--model-file", f"{trap.payload}:build", "--data", "fashion-mini")
    command("eval", *model, "--attack", file, "--limit", "20", "--quiet", "--jobs", "1")
    assert trap.marker.exists()


def test_the_answer_holds_for_one_call(trap: Trap, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("# other" + PAYLOAD.format(marker=str(trap.marker)))
    rpat.load_model(trap.run, trust=True)
    trap.marker.unlink()
    with pytest.raises(ConfigError, match="wants to run"):
        resolve([Layer("sent.yaml", {"plugins": [str(other)]})])
    with trusting(everything=True), pytest.raises(ConfigError, match="no plugin file"):
        resolve([Layer("sent.yaml", {"plugins": [str(tmp_path / "none.py")]})])
    with pytest.raises(ConfigError, match="wants to run"):
        resolve([Layer("sent.yaml", {"plugins": [str(other)]})])
    assert not trap.marker.exists()


def test_all_files_that_want_to_run_are_listed_and_none_has_run(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.py" for name in "ab"]
    for file in files:
        file.write_text(f"open({str(tmp_path / 'marker')!r}, 'w')  # {file.name}")
    layers = [
        Layer("--set", {"plugins": [str(files[0])]}, by_user=True),
        Layer("sent.yaml", {"plugins": [str(tmp_path / "c.py"), str(files[1])]}),
    ]
    with pytest.raises(ConfigError) as refused:
        resolve(layers)
    assert len(refused.value.problems) == 2
    assert not (tmp_path / "marker").exists()


def test_a_comparison_and_a_report_of_a_run_run_nothing(trap: Trap, honest_run: Path) -> None:
    command("compare", trap.run, honest_run, "--json")
    assert not trap.marker.exists()


def test_a_download_is_started_by_the_user_only(trap: Trap) -> None:
    asked = {"data": {"name": "cifar10", "download": True, "root": "made-by-a-stranger"}}
    sent = Layer("sent.yaml", asked)
    assert not resolve([sent]).data.download
    flag = Layer("--download", {"data": {"download": True}}, by_user=True)
    assert resolve([sent, flag]).data.download
    with trusting(everything=True):
        assert resolve([sent]).data.download
    file = trap.write("cifar.yaml", asked)
    with pytest.raises(DataError) as missing:
        command("train", "--config", file, "--out", "new")
    assert "--download" in str(missing.value)
    assert not Path("made-by-a-stranger").exists()
    for checkpoint in (trap.run / "checkpoints").glob("*.pt"):
        content = load_checkpoint(checkpoint)
        content["recipe"] |= {"plugins": [], **asked}
        save_checkpoint(checkpoint, content)
    with pytest.raises(DataError):
        evaluate(trap.run)
    assert not Path("made-by-a-stranger").exists()


def test_a_checkpoint_with_an_object_that_runs_code_is_not_loaded(trap: Trap) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (trap.marker,)

    torch.save({"format": 1, "architecture": {}, "model": Bomb()}, trap.best)
    with pytest.raises(Exception, match=r"best\.pt"):
        evaluate(trap.best)
    assert not trap.marker.exists()


@pytest.mark.parametrize(
    "engine",
    [
        {"name": "slurm", "cluster": "local", "setup": ["touch marker"]},
        {"name": "slurm", "cluster": "local", "sbatch": {"output": "marker"}},
        {"name": "ray", "address": "a-stranger:6379"},
    ],
    ids=["setup", "sbatch", "address"],
)
def test_a_sweep_file_starts_no_commands_on_a_cluster(trap: Trap, engine: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"engine\.\w+: runs code .*--trust"):
        sweep(trap, {"engine": engine})
    assert not trap.marker.exists()
    sweep(trap, {"engine": engine}, "--dry-run")  # shows what would run
