"""Output diversified initialization (ODI): Tashiro, Song & Ermon, NeurIPS 2020, arXiv 2003.06878.

Before an attack climbs, it walks where the logits change most in a random direction, so that its
starts differ where it matters: in the output.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import LossFn, check_pixels
from rpat_cli.attacks.best import Best
from rpat_cli.attacks.forward import input_gradient, input_losses
from rpat_cli.attacks.losses import INNER_LOSSES
from rpat_cli.attacks.pgd_settings import below, not_among
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError


@dataclass(frozen=True)
class OdiPGD:
    """From each of `restarts` starts in the ball, `odi_steps` steps of `odi_step_size` (default:
    eps) up Σ_k w_k z_k, w ~ U(-1, 1)^K, then `steps` steps of `step_size` (default: the threat's
    usual one) up the inner loss.

    loss: a key of `INNER_LOSSES`. eot: each gradient is the mean over so many passes.
    start, direction: "uniform", or the perturbation (B, C, H, W) and w (B, K). An image that is
    wrong at the end of a run is not attacked again. Raises `ConfigError` for values outside these.
    """

    threat: Threat
    steps: int = 20
    restarts: int = 20
    step_size: float | None = None
    odi_steps: int = 2
    odi_step_size: float | None = None
    loss: str = "margin"
    start: Literal["uniform"] | Tensor = "uniform"
    direction: Literal["uniform"] | Tensor = "uniform"
    eot: int = 1

    def __post_init__(self) -> None:
        problems = [
            *not_among("loss", self.loss, tuple(INNER_LOSSES)),
            *below("steps", self.steps, 0),
            *below("odi_steps", self.odi_steps, 0),
            *below("restarts", self.restarts, 1),
            *below("eot", self.eot, 1),
        ]
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W) with classes `y` (B,). Returns x_adv, in ball and box."""
        x = x.detach()
        check_pixels(model, x)
        best, loss = Best(x, y), INNER_LOSSES[self.loss]
        with attack_mode(model) as model:
            for _ in range(self.restarts):
                at = (~best.fooled).nonzero().squeeze(1)
                if not len(at):
                    break
                x_adv = self._run(model, x[at], y[at], at)
                _, logits = input_losses(model, x_adv, lambda logits: logits, self.eot)
                best.update(at, x_adv, loss(logits, y[at]), logits)
        return best.x_adv

    def _run(self, model: nn.Module, x: Tensor, y: Tensor, at: Tensor) -> Tensor:
        w = self.direction[at].to(x) if isinstance(self.direction, Tensor) else None
        loss = INNER_LOSSES[self.loss]

        def in_a_direction(logits: Tensor) -> Tensor:
            nonlocal w
            if w is None:  # how many classes there are, the logits tell
                w = torch.empty_like(logits).uniform_(-1, 1)
            return (w * logits).sum(dim=1)

        far = self.threat.eps if self.odi_step_size is None else self.odi_step_size
        near = self.threat.default_step_size() if self.step_size is None else self.step_size
        x_adv = x + self._noise(x, at)  # as published: not in the box at first
        for _ in range(self.odi_steps):
            x_adv = self._step(model, x, x_adv, in_a_direction, far)
        for _ in range(self.steps):
            x_adv = self._step(model, x, x_adv, lambda logits: loss(logits, y), near)
        return x_adv

    def _step(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, rises: LossFn, size: float
    ) -> Tensor:
        grad, _, _ = input_gradient(model, x_adv, rises, self.eot)
        direction = self.threat.geometry.step(grad, x_adv)
        return self.threat.apply(x, x_adv + size * direction - x)

    def _noise(self, x: Tensor, at: Tensor) -> Tensor:
        if isinstance(self.start, Tensor):
            return self.start[at].to(x)
        return self.threat.geometry.random(x, self.threat.eps)
