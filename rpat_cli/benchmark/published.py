"""A training step in the order of work of the published code.

Written from what its recorded steps count (tests/golden): as many passes as it makes, each backward
pass of the attack through all weights (`loss.backward()`, as its scripts call it), float32, NCHW,
the loss read after every step, and images that are opened one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks.base import LossFn
from rpat_cli.attacks.pgd import PGD
from rpat_cli.benchmark.pipeline import OneByOne
from rpat_cli.engine.averaging import AveragedModel
from rpat_cli.methods.base import Method, StepContext

ORDERS: Mapping[str, Mapping[str, Any]] = {
    "pgd": {},
    "trades": {"extra_clean_pass": True},
    "mart": {},
    "consistency": {},
    "rebat": {},
}
"""The methods of the published code, each with or without `ra`, and what they do there besides."""


@dataclass(frozen=True)
class WholeBackward:
    """PGD whose gradients go through all weights."""

    pgd: PGD

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.perturb(model, x, lambda logits: F.cross_entropy(logits, y, reduction="none"))

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """As `PGD.perturb`: x_adv, shaped like x (B, C, H, W), in ball and box."""
        pgd = self.pgd if start is None else replace(self.pgd, start=start)
        threat = pgd.threat
        was_training = model.training
        model.train(pgd.bn_mode == "train")
        # No step from there: the start alone, in ball and box.
        x_adv = replace(pgd, steps=0).perturb(model, x, loss_fn)
        for _ in range(pgd.steps):
            x_adv = x_adv.detach().requires_grad_()
            model.zero_grad()
            loss_fn(model(x_adv)).sum().backward()  # type: ignore[no-untyped-call]
            assert x_adv.grad is not None
            direction = threat.geometry.step(x_adv.grad, x_adv)
            x_adv = threat.apply(x, x_adv.detach() - x + pgd.step_size * direction)
        model.train(was_training)
        return x_adv


@dataclass
class PublishedOrder:
    """Trains step after step; a contestant."""

    model: nn.Module
    method: Method
    attack: WholeBackward
    optimizer: torch.optim.Optimizer
    batches: OneByOne
    averaging: AveragedModel | None
    epoch: int
    name: str = "published"

    @property
    def device(self) -> torch.device:
        return self.batches.device

    def run(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            self._step(*self.batches.batch())

    def _step(self, x: Tensor, y: Tensor) -> None:
        teacher = self.averaging.teacher(self.epoch) if self.averaging else None
        step = StepContext(self.model, self.attack, x, y, epoch=self.epoch, teacher=teacher)
        loss = torch.stack([*self.method(step).terms.values()]).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.averaging is not None:
            self.averaging.update(self.model, self.epoch)
        loss.item()
