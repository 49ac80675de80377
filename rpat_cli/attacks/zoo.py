"""ZOO: gradient descent without gradients (Chen et al., AISec 2017, arXiv 1708.03999).

The partial derivatives of the margin loss are estimated one pixel at a time, from two queries each,
and followed by Adam, coordinate by coordinate (the paper's Algorithm 2). Here the perturbation is
projected onto the threat model, instead of being weighed against the loss by a constant: so it is
an attack like the others, in any norm.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import check_pixels
from rpat_cli.attacks.forward import forward
from rpat_cli.attacks.losses import margin_loss
from rpat_cli.attacks.side_effects import frozen
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, Problem

PROBE = 1e-3
"""Half the distance of the two queries, in pixels. The paper's 1e-4 drowns in the rounding of
float32 logits."""

BETA1, BETA2, TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class ZOO:
    """At most `queries` queries per image, in steps of `coordinates` random pixels (two queries
    each, plus one).

    `step_size`: Adam's, in pixel units (default: the threat's usual step). Only logits are asked
    for. An image that is misclassified takes no further step. Raises `ConfigError` for a
    budget below one step.
    """

    threat: Threat
    queries: int = 10_000
    coordinates: int = 128
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.coordinates < 1:
            raise ConfigError(
                Problem("coordinates", f"must be at least 1, given {self.coordinates}.")
            )
        if self.queries < 2 * self.coordinates + 1:
            message = (
                f"{self.queries} queries are less than one step of {self.coordinates} "
                "coordinates costs"
            )
            raise ConfigError(Problem("queries", f"{message}: {2 * self.coordinates + 1}."))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack images `x` (B, C, H, W) with classes `y` (B,). Returns x_adv in ball and box."""
        coordinates = min(self.coordinates, x[0].numel())
        step_size = self.threat.default_step_size() if self.step_size is None else self.step_size
        check_pixels(model, x)
        x_adv = x.detach().clone()
        with frozen(model) as model, torch.no_grad():
            climb = _Climb.begin(x_adv)
            todo = torch.arange(len(x), device=x.device)
            for _ in range(self.queries // (2 * coordinates + 1)):
                todo = todo[forward(model, x_adv[todo]).argmax(dim=1) == y[todo]]
                if not len(todo):
                    break
                pixels = (
                    torch.rand(len(todo), x[0].numel(), device=x.device)
                    .topk(coordinates, dim=1)
                    .indices
                )
                slope = _slopes(model, x_adv[todo], y[todo], pixels)
                move = climb.adam(todo, pixels, slope) * step_size
                ahead = x_adv[todo].flatten(1).scatter_add(1, pixels, move).view_as(x[todo])
                x_adv[todo] = self.threat.apply(x[todo], ahead - x[todo])
        return x_adv


def _slopes(model: nn.Module, x: Tensor, y: Tensor, pixels: Tensor) -> Tensor:
    """(B, K) estimates of d loss / d pixel at the (B, K) `pixels`, by symmetric differences."""
    slopes = torch.empty(pixels.shape, device=x.device, dtype=x.dtype)
    for k in range(pixels.shape[1]):
        probe = torch.zeros_like(x).flatten(1).scatter_(1, pixels[:, k : k + 1], PROBE).view_as(x)
        logits = forward(model, torch.cat([x + probe, x - probe]))
        ahead, behind = margin_loss(logits, y.repeat(2)).chunk(2)
        slopes[:, k] = (ahead - behind) / (2 * PROBE)
    return slopes


@dataclass(frozen=True)
class _Climb:
    """Adam's state, (B, pixels) each; a pixel's clock counts how often it was moved."""

    first: Tensor
    second: Tensor
    clock: Tensor

    @classmethod
    def begin(cls, x: Tensor) -> Self:
        zeros = torch.zeros_like(x).flatten(1)
        return cls(zeros.clone(), zeros.clone(), zeros.clone())

    def adam(self, at: Tensor, pixels: Tensor, slope: Tensor) -> Tensor:
        """The next moves (B, K), in units of the step size, of some pixels of the samples `at`."""
        cell = (at[:, None], pixels)
        self.first[cell] = BETA1 * self.first[cell] + (1 - BETA1) * slope
        self.second[cell] = BETA2 * self.second[cell] + (1 - BETA2) * slope.square()
        self.clock[cell] += 1
        first = self.first[cell] / (1 - BETA1 ** self.clock[cell])
        second = self.second[cell] / (1 - BETA2 ** self.clock[cell])
        return first / (second.sqrt() + TINY)
