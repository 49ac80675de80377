"""Shared by all tests: the tiny network and the records of tests/golden, and ways to watch a
model."""

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_steps import STEPS
from torch import Tensor, nn

from rpat_cli.recipe.layers import layers_of, resolve
from rpat_cli.recipe.schema import Recipe

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_DIRS = "RPAT_GOLDEN_DIRS"
"""Environment variable: folders with further golden sets, separated as in PATH."""


def tiny_net(channels: int = 3, classes: int = 10) -> nn.Sequential:
    """The network of tests/golden/README.md, for images of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


class Normalize(nn.Module):
    """(x - mean) / std per channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


METHOD_NAMES = ("pgd", "trades", "mart", "consistency", "rebat")
GOLDEN_FAMILIES = {
    "methods": (
        *METHOD_NAMES,
        *(f"{name}_ra" for name in METHOD_NAMES),
        "consistency_trades",
        "consistency_mart",
    ),
    "further methods": tuple(STEPS),
    "collaborators": ("awp_trades", "awp_pgd", "awp_adr", "ema_warmup"),
    "attacks": ("pma", "md", "mm", "malt", "odi_pgd", "a3"),
}
"""The families of golden sets, by what they are of."""


def golden_files(kind: str) -> list[Path]:
    """The golden sets of a kind; those of no known family are with the methods, to fail there."""
    known = [name for names in GOLDEN_FAMILIES.values() for name in names]
    own = GOLDEN_FAMILIES[kind]
    strangers = ("",) if kind == "methods" else ()
    return [file for file in every_golden_file() if family_of(file, known) in (*own, *strangers)]


def every_golden_file() -> list[Path]:
    """The sets of one training step: ours, then those in further folders."""
    return [file for folder in golden_folders() for file in sorted(folder.glob("*.npz"))]


def golden_folders() -> list[Path]:
    """Ours, then those that `RPAT_GOLDEN_DIRS` names."""
    folders = [
        Path(folder) for folder in os.environ.get(GOLDEN_DIRS, "").split(os.pathsep) if folder
    ]
    missing = [folder for folder in folders if not folder.is_dir()]
    assert not missing, f"{GOLDEN_DIRS}: no such folder: {missing}"
    return [GOLDEN, *folders]


def family_of(file: Path, families: Sequence[str]) -> str:
    """The longest of the names that the file's own name begins with; "" where none does.

    `trades_ra_mix0.3.npz` is of the family trades_ra: everything else is in its `hyper`.
    """
    fitting = [name for name in families if re.fullmatch(rf"{re.escape(name)}(_.*)?", file.stem)]
    return max(fitting, key=len, default="")


@dataclass(frozen=True)
class Golden:
    """One golden set: arrays by name as tensors, `hyper` as a dict; `name` is its family."""

    name: str
    file: Path

    @cached_property
    def arrays(self) -> dict[str, Any]:
        with np.load(self.file) as file:
            return {key: file[key] for key in file.files}

    @cached_property
    def hyper(self) -> dict[str, Any]:
        return dict(json.loads(str(self.arrays["hyper"])))

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def group(self, prefix: str) -> dict[str, Tensor]:
        """All arrays called `prefix.NAME`, by NAME."""
        return {
            key[len(prefix) + 1 :]: self[key] for key in self.arrays if key.startswith(f"{prefix}.")
        }

    def model(self, state: str = "state") -> nn.Module:
        """The recorded network in train mode, float64, taking pixels in [0, 1]."""
        weights = self.group(state)
        net = tiny_net(channels=weights["0.weight"].shape[1], classes=len(weights["8.bias"]))
        net.double().load_state_dict(weights)
        if "mean" not in self.hyper:
            return net
        return nn.Sequential(Normalize(self.hyper["mean"], self.hyper["std"]), net)

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """x and y as the method sees them: with a second view, [view1; view2] and y twice."""
        if "x_second_view" not in self:
            return self["x"], self["y"]
        return torch.cat([self["x"], self["x_second_view"]]), self["y"].repeat(2)

    @property
    def x_adv(self) -> Tensor:
        return self["x"] + self["delta"] if "delta" in self else self["x_adv"]

    @property
    def start(self) -> Tensor | str:
        """What the attack started from, as `PGD` takes it."""
        noise = "start_noise"
        return self[noise] if noise in self.arrays else "zero"


class CountForwards:
    """Counts a model's forward passes, by the mode that it is in."""

    def __init__(self, model: nn.Module) -> None:
        self.train = self.eval = 0
        model.register_forward_hook(self._count)

    def _count(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if model.training:
            self.train += 1
        else:
            self.eval += 1

    @property
    def total(self) -> int:
        return self.train + self.eval


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that an attack must leave alone: parameters, buffers, gradients, modes,
    requires_grad."""
    return copy.deepcopy(
        {
            "state": dict(model.state_dict()),
            "grads": {name: p.grad for name, p in model.named_parameters()},
            "wanted": {name: p.requires_grad for name, p in model.named_parameters()},
            "modes": {name: module.training for name, module in model.named_modules()},
        }
    )


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Two snapshots are equal, bit for bit."""
    assert before["modes"] == after["modes"]
    assert before["wanted"] == after["wanted"]
    for kind in ("state", "grads"):
        assert before[kind].keys() == after[kind].keys()
        for name, value in before[kind].items():
            same = (
                value is after[kind][name]
                if value is None
                else torch.equal(value, after[kind][name])
            )
            assert same, f"{kind} {name} changed"


def load_recipe(
    configs: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, tuple[tuple[str, ...], Any]] | None = None,
    *,
    recipe: str | None = None,
) -> Recipe:
    """What a command line gives, as one checked recipe."""
    return resolve(layers_of(recipe=recipe, configs=configs, assignments=assignments, flags=flags))
