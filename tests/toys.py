"""A problem small enough for AutoAttack in a second: noisy class templates, and a conv net that
learns them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data import DATASETS
from rpat_cli.data.base import LoadOptions
from rpat_cli.models.base import build_model


@dataclass(frozen=True)
class Toy:
    model: nn.Module
    x: Tensor
    y: Tensor


def make_toy(classes: int, n: int = 48, side: int = 10) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(classes)
        templates = torch.rand(classes, 1, side, side)
        y = torch.arange(n + 200) % classes
        x = (templates[y] + 0.35 * torch.randn(n + 200, 1, side, side)).clamp(0, 1)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 9, classes),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(x[n:]), y[n:]).backward()
            optimizer.step()
        optimizer.zero_grad()
    return Toy(model.eval(), x[:n], y[:n])


@pytest.fixture(scope="session", params=[10])
def toy(request: pytest.FixtureRequest) -> Toy:
    """A ten-class problem; other class counts by indirect parametrization."""
    return make_toy(request.param)


class Quick(pyautoattack.AutoAttack):  # type: ignore[misc]
    """The library with small budgets: for both sides of each comparison."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 4
            attack.n_restarts = 1
        self.fab.n_iter = 4
        self.fab.n_restarts = min(self.fab.n_restarts, 2)
        self.square.n_queries = 25


@pytest.fixture
def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack in a fraction of a second, wherever it is called from."""
    monkeypatch.setattr(pyautoattack, "AutoAttack", Quick)


@dataclass(frozen=True)
class Honest:
    """An adversarially trained classifier, the test images of fashion-mini, and the threat that it
    was trained for."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a network and a batch to what training drives down."""


def of_pgd(threat: Threat, steps: int) -> Loss:
    """The loss of adversarial training."""
    attack = ATTACKS["pgd"](threat, steps=steps)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv = attack(model, x, y)
        return F.cross_entropy(model.train()(x_adv), y)

    return loss


def fashion() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The embedded images, for training and for tests."""
    raw = DATASETS["fashion-mini"].load(LoadOptions(Path()))
    return raw.train.tensors(), raw.test.tensors()


def fit(loss: Loss, epochs: int, *, model: nn.Module | None = None, classes: int = 10) -> nn.Module:
    """small-cnn, or a copy of `model`, trained on the embedded images, in eval mode: some three
    seconds for an epoch of PGD-5."""
    spec = DATASETS["fashion-mini"]
    (x, y), _ = fashion()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if model is None:
            model = build_model(
                "small-cnn", shape=(1, 28, 28), classes=classes, mean=spec.mean, std=spec.std
            )
        model = copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=epochs * 40
        )
        for batch in (part for _ in range(epochs) for part in torch.randperm(len(x)).split(50)):
            optimizer.zero_grad()
            loss(model, x[batch], y[batch]).backward()
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="session")
def honest() -> Honest:
    """small-cnn after three epochs of PGD training on the embedded images: some ten seconds,
    once."""
    threat = Threat("Linf", DATASETS["fashion-mini"].eps["Linf"])
    model = fit(of_pgd(threat, steps=5), 3)
    return Honest(model, *fashion()[1], threat)
