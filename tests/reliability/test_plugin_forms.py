"""Schedules, augmentations, mixings and models of plugins: what does not have their form is said
where it is added, with file and line, and what returns something else before the training."""

import json
from pathlib import Path
from typing import Any

import pytest

import rpat_cli as rpat
from rpat_cli.cli.app import app
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, RpatError, UserCodeError
from rpat_cli.methods import METHODS
from rpat_cli.models import MODELS
from rpat_cli.recipe import plugins
from rpat_cli.recipe.plugins import load_plugins

HEAD = """from __future__ import annotations
from dataclasses import dataclass
import torch
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.methods import METHODS
from rpat_cli.methods.declare import Needs
from rpat_cli.models import MODELS
"""
SMALL: dict[str, Any] = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "small-cnn",
    "method": "standard",
    "epochs": 1,
    "eval": ["clean"],
    "validation": {"steps": 1, "limit": 20},
}


@pytest.fixture(autouse=True)
def _tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", {})
    for table in (AUGMENTATIONS, DATASETS, MIXINGS, SCHEDULES, METHODS, MODELS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))


def plugin(text: str) -> str:
    Path("mine.py").write_text(HEAD + text)
    return "mine.py"


def a_class(name: str, call: str, base: str = "") -> str:
    return f"@dataclass(frozen=True)\nclass {name}{base}:\n    a: float = 1.0\n    {call}\n"


WRONG = {
    "a schedule that is a function": (
        "def mine(epoch, epochs): return 1.0\nSCHEDULES.add('mine', mine)\n",
        r"mine\.py:9, mine: the schedule 'mine' must be a frozen dataclass",
    ),
    "a schedule of one argument": (
        a_class("Mine", "def __call__(self, epoch): return 1.0") + "SCHEDULES.add('mine', Mine)\n",
        r"mine\.py:12, Mine.__call__: .* is called as schedule\(epoch, epochs\), and cannot be: ",
    ),
    "a schedule without a call": (
        a_class("Mine", "b: float = 2.0") + "SCHEDULES.add('mine', Mine)\n",
        r"mine\.py:\d+, Mine: the schedule 'mine' has no __call__",
    ),
    "a mixing without views": (
        a_class("Mine", "def __call__(self, x, y): return x, y") + "MIXINGS.add('mine', Mine)\n",
        r"Mine.__call__: the mixing 'mine' is called as mixing\(x, y, views\)",
    ),
    "an augmentation without the size": (
        "def mine(): return lambda x: x\nAUGMENTATIONS.add('mine', mine)\n",
        r"mine\.py:9, mine: .* is called as augmentation\(image_size, \*\*settings\)",
    ),
    "an augmentation with a setting of no type": (
        "def mine(image_size, p=0.5): return lambda x: x\nAUGMENTATIONS.add('mine', mine)\n",
        r"mine\.py:9, mine: the setting 'p' of the augmentation 'mine' needs a type",
    ),
    "an augmentation with a type that is no class": (
        "def mine(image_size, p: list[int] = ()): return lambda x: x\n"
        "AUGMENTATIONS.add('mine', mine)\n",
        "the setting 'p' of the augmentation 'mine' needs a type",
    ),
    "an augmentation that is none": (
        "AUGMENTATIONS.add('mine', 5)\n",
        "the augmentation 'mine' must be a callable",
    ),
    "a model of two arguments": (
        "def mine(channels, classes): return None\nMODELS.add('mine', mine)\n",
        r"mine\.py:9, mine: .* is called as model\(channels, image_size, classes\)",
    ),
    "a model that is none": ("MODELS.add('mine', torch)\n", "the model 'mine' must be a callable"),
    "a method of two arguments": (
        a_class("Mine", "def __call__(self, model, x): return x", "(Needs)")
        + "METHODS.add('mine', Mine)\n",
        r"Mine.__call__: the method 'mine' is called as method\(step\)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_wrong_form_is_said_when_it_is_added(kind: str) -> None:
    text, said = WRONG[kind]
    with pytest.raises(ConfigError, match=said) as refused:
        load_plugins([(plugin(text), "--plugin")])
    assert "the plugin failed" in str(refused.value)


RETURNS = {
    "a schedule that returns nothing": (
        a_class("Mine", "def __call__(self, epoch, epochs): return None")
        + "SCHEDULES.add('mine', Mine)\n",
        {"schedule": "mine"},
        r"Mine: must return a finite number, at least 0: .*; it returned None",
    ),
    "a schedule that divides by zero": (
        a_class("Mine", "def __call__(self, epoch, epochs): return 1 / epoch")
        + "SCHEDULES.add('mine', Mine)\n",
        {"schedule": "mine"},
        r"mine\.py:12, in __call__: ZeroDivisionError",
    ),
    "an augmentation of another size": (
        "def mine(image_size, p: float = 0.5): return lambda x: x[:, :, :5]\n"
        "AUGMENTATIONS.add('mine', mine)\n",
        {"data": {"name": "fashion-mini", "val_size": 100, "augment": ["flip", "mine:p=1"]}},
        r"mine\.py:9, mine: must return images as one float tensor of shape \(2, 1, 28, 28\)",
    ),
    "an augmentation that makes none": (
        "def mine(image_size): return None\nAUGMENTATIONS.add('mine', mine)\n",
        {"data": {"name": "fashion-mini", "val_size": 100, "augment": ["mine"]}},
        r"mine\.py:9, mine: must return a function of images; it returned None",
    ),
    "a mixing of images alone": (
        a_class("Mine", "def __call__(self, x, y, views=1): return x")
        + "MIXINGS.add('mine', Mine)\n",
        {"mix": "mine"},
        r"Mine: must return two tensors, images and labels; it returned torch\.float32",
    ),
    "a mixing of hard labels": (
        a_class("Mine", "def __call__(self, x, y, views=1): return x, y.argmax(1)")
        + "MIXINGS.add('mine', Mine)\n",
        {"mix": "mine"},
        r"Mine: must return labels as one float tensor of shape \(2, 10\)",
    ),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_what_returns_something_else_is_said_before_the_training(kind: str) -> None:
    text, keys, said = RETURNS[kind]
    with pytest.raises(RpatError, match=said) as refused:
        rpat.train(**{**SMALL, **keys}, plugins=[plugin(text)], out="new")
    assert isinstance(refused.value, UserCodeError | ConfigError)
    assert not Path("new").exists()


@pytest.mark.slow
def test_what_has_the_right_form_is_trained_with() -> None:
    text = (
        a_class("Mine", "def __call__(self, epoch, epochs): return self.a")
        + "SCHEDULES.add('mine', Mine)\n"
        + a_class("Mix", "def __call__(self, x, y, views=1): return x, y")
        + "MIXINGS.add('mine', Mix)\n"
        "def mine(image_size: int, p: float | None = None): return lambda x: x\n"
        "AUGMENTATIONS.add('mine', mine)\n"
    )
    data = {**SMALL["data"], "augment": ["mine:p=0.5"]}
    keys = {**SMALL, "data": data, "schedule": {"name": "mine", "a": 0.5}, "mix": "mine"}
    run = rpat.train(**keys, plugins=[plugin(text)], out="new")
    assert run.report.exists()


def test_a_data_set_with_few_images_is_evaluated_without_holding_any_out() -> None:
    """`data.val_size` is about trainings, and more than there are images here."""
    text = (
        "from rpat_cli.data.base import DatasetSpec, RawData\n"
        "from rpat_cli.data.splits import TensorSplit\n"
        "def few(options):\n"
        "    images = torch.zeros(60, 1, 8, 8, dtype=torch.uint8)\n"
        "    split = TensorSplit(images, torch.arange(60) % 2)\n"
        "    return RawData(split, split, ('a', 'b'))\n"
        "eps = {'Linf': 0.1}\n"
        "DATASETS.add('few', DatasetSpec('few', (1, 8, 8), 2, (0.5,), (0.3,), eps, few))\n"
    )
    Path("net.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    arguments = ["eval", "--model-file", "net.py:build", "--data", "few", "--attack", "clean"]
    arguments += ["--plugin", plugin(text), "--quiet", "--jobs", "1"]
    app(arguments, prog_name="rpat", standalone_mode=False)
    (file,) = Path("runs/external").rglob("*.json")
    assert json.loads(file.read_text())["n"] == 60
