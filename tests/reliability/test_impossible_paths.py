"""What no file can be called, wherever a path may be written: one message, never an error of the
operating system or of Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rpat_cli as rpat
from rpat_cli.errors import RpatError
from rpat_cli.recipe.layers import Layer, read_recipe, resolve
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.regular import read_regular
from rpat_cli.sweep.expand import plan_sweep

IMPOSSIBLE = {
    "a name of 5,000 characters": "x" * 5000,
    "3,000 folders": "x/" * 3000,
    "a null byte": "a\0b",
    "half a character": "a\ud800b",
    "no such home": "~nobody-of-that-name/x",
    "a link to itself": "loop",
}
SMALL: dict[str, Any] = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "small-cnn",
    "method": "standard",
    "epochs": 1,
}


def recipe(keys: dict[str, Any]) -> None:
    resolve([Layer("sent.yaml", keys)])


def recipe_file(keys: dict[str, Any]) -> None:
    Path("sent.yaml").write_text(json.dumps(keys))
    resolve(read_recipe(Path("sent.yaml")))


def sweep_file(keys: dict[str, Any]) -> None:
    grid = {"recipe": {}, "grid": {"batch_size": [1]}}
    Path("sweep.yaml").write_text(json.dumps({**grid, **keys}))
    plan_sweep(Path("sweep.yaml"))


def checkpoint(keys: dict[str, Any]) -> None:
    content = {"architecture": {}, "model": {"w": nn.Linear(1, 1).weight.data}, "epoch": 1}
    save_checkpoint(Path("sent.pt"), {**content, "recipe": keys})
    rpat.load_model("sent.pt")


def train(**keys: Any) -> None:
    rpat.train(**{**SMALL, "out": "new", **keys})


def evaluate(attack: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    rpat.evaluate(model, attack, data="fashion-mini", limit=10)


ROUTES: dict[str, Callable[[str], object]] = {
    "plugins": lambda path: recipe({"plugins": [f"{path}.py"]}),
    "plugins of a file": lambda path: recipe_file({"plugins": [f"{path}.py"]}),
    "plugins of a checkpoint": lambda path: checkpoint({"plugins": [f"{path}.py"]}),
    "plugins of a sweep": lambda path: sweep_file({"recipe": {"plugins": [f"{path}.py"]}}),
    "plugins of the caller": lambda path: train(plugins=[f"{path}.py"]),
    "data.root": lambda path: train(data={"name": "imagefolder", "root": path}),
    "data.root of cifar10": lambda path: train(data={"name": "cifar10", "root": path}),
    "data.root of a checkpoint": lambda path: checkpoint({"data": {"root": path}}),
    "data.extra": lambda path: train(data={"name": "fashion-mini", "extra": {"path": path}}),
    "extends": lambda path: recipe_file({"extends": [f"{path}.yaml"]}),
    "a recipe file": lambda path: rpat.train(f"{path}.yaml", out="new"),
    "the config of a sweep": lambda path: sweep_file({"config": f"{path}.yaml"}),
    "a suite file": lambda path: evaluate(f"{path}.yaml"),
    "transfer:FILE.pt": lambda path: evaluate(f"transfer:{path}.pt@fgsm"),
    "transfer:FILE.py": lambda path: evaluate(f"transfer:{path}.py:build@fgsm"),
    "transfer in a recipe": lambda path: train(eval=[f"transfer:{path}.py:build@fgsm"]),
    "a checkpoint": lambda path: rpat.load_model(f"{path}.pt", data="fashion-mini"),
    "a run folder": lambda path: rpat.load_model(path),
    "a model file": lambda path: rpat.load_model(f"{path}.py:build", data="fashion-mini"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("loop", "loop.py", "loop.pt", "loop.yaml"):
        Path(name).symlink_to(name)


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize("route", ROUTES)
def test_one_message(route: str, kind: str) -> None:
    with pytest.raises(RpatError) as refused:
        ROUTES[route](IMPOSSIBLE[kind])
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert "bug" not in message
    assert not Path("new").exists()


@pytest.mark.parametrize("kind", [kind for kind in IMPOSSIBLE if kind != "no such home"])
def test_a_folder_for_results(kind: str) -> None:
    with pytest.raises(RpatError, match=r"^out: .*Use another path\."):
        train(out=IMPOSSIBLE[kind])


def test_reading_raises_one_kind_of_error_for_whatever_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_regular(tmp_path / "file", 3) == b"con"
    for path in (*IMPOSSIBLE.values(), str(tmp_path)):
        with pytest.raises(OSError, match=r".") as error:
            read_regular(Path(path))
        assert error.value.strerror
