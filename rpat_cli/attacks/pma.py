"""The probability margin attack PMA (Xie et al., 2024, arXiv 2411.15210), and margin decomposition
MD (Ma et al., 2020, arXiv 2006.13726), whose scheme it has: the two ends of the margin one after
the other, then both together. Linf."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from rpat_cli.attacks.base import check_pixels
from rpat_cli.attacks.forward import input_gradient, input_losses
from rpat_cli.attacks.losses import best_wrong_class
from rpat_cli.attacks.pgd_settings import below, not_among
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError

Of = Literal["probabilities", "logits"]

STAGES = 2


@dataclass(frozen=True)
class MarginDecomposition:
    """Two stages of `steps` steps. With q the probabilities or the logits, and t the likeliest
    wrong class of the current point:

        step 0               raises q_y
        until half           lowers q_y (first stage), raises q_t (second stage)
        from half on         raises q_t - q_y

    The step size falls from 2 eps to 0 over each half, like a cosine. Each stage starts anew in the
    ball, on the images that are right; an image is done where it is wrong first.

    start: "uniform", or the perturbations (stages, B, C, H, W).
    eot: each gradient is the mean over so many passes. Raises `ConfigError` for values outside
    these.
    """

    threat: Threat
    steps: int = 100
    of: Of = "probabilities"
    start: Literal["uniform"] | Tensor = "uniform"
    eot: int = 1

    def __post_init__(self) -> None:
        problems = [
            *not_among("of", self.of, get_args(Of)),
            *below("steps", self.steps, 2),
            *below("eot", self.eot, 1),
        ]
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W) with classes `y` (B,). Returns x_adv: where an image is wrong
        first, or else the last point. Those that are wrong as they are come back as they are."""
        x = x.detach()
        check_pixels(model, x)
        found = x.clone()
        with attack_mode(model) as model:
            _, logits = input_losses(model, x, lambda logits: logits, self.eot)
            left = (logits.argmax(dim=1) == y).nonzero().squeeze(1)
            for stage in range(STAGES):
                left = self._stage(model, x, y, stage, left, found)
        return found

    def _stage(
        self, model: nn.Module, x: Tensor, y: Tensor, stage: int, at: Tensor, found: Tensor
    ) -> Tensor:
        """Which of the images `at` resist; the points that they end at are written into `found`."""
        x_adv = x[at] + self._noise(x, stage, at)  # as published: not in the box at first
        for i in range(self.steps):
            if not len(at):
                return at
            own = y[at]
            rises = partial(self._loss, y=own, stage=stage, i=i)
            grad, _, logits = input_gradient(model, x_adv, rises, self.eot)
            right = logits.argmax(dim=1) == own
            found[at[~right]] = x_adv[~right]
            at, x_adv, grad = at[right], x_adv[right], grad[right]
            x_adv = self.threat.ball_then_box(x[at], x_adv + self._step_size(i) * grad.sign())
        _, logits = input_losses(model, x_adv, lambda logits: logits, self.eot)
        found[at] = x_adv
        return at[logits.argmax(dim=1) == y[at]]

    def _loss(self, logits: Tensor, y: Tensor, stage: int, i: int) -> Tensor:
        q = logits if self.of == "logits" else logits.softmax(dim=1)
        q_y = q.gather(1, y[:, None])
        q_t = q.gather(1, best_wrong_class(logits, y)[:, None])
        if i == 0:
            return q_y
        if i >= self._half:
            return q_t - q_y
        return -q_y if stage == 0 else q_t

    def _step_size(self, i: int) -> float:
        j = i - 1 if i <= self._half else i - self._half - 1
        return self.threat.eps * (1 + math.cos(math.pi * j / (self.steps - self._half)))

    @property
    def _half(self) -> int:
        return self.steps // 2

    def _noise(self, x: Tensor, stage: int, at: Tensor) -> Tensor:
        if isinstance(self.start, Tensor):
            return self.start[stage][at].to(x)
        return self.threat.geometry.random(x[at], self.threat.eps)


def md(threat: Threat, **settings: Any) -> MarginDecomposition:
    """Margin decomposition: the margin of the logits."""
    return MarginDecomposition(threat, of="logits", **settings)
