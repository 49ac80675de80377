"""Does the gradient say how the outputs change?

Where a model cuts a part of its graph, ripples, or jumps, its gradient is one of another function
than the one that it computes (shattered gradients: Athalye, Carlini & Wagner, ICML 2018, arXiv
1802.00420), and whoever follows it is led astray.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rpat_cli.attacks.forward import forward, input_gradient
from rpat_cli.attacks.losses import margin
from rpat_cli.attacks.threat import Threat

STEP = 0.01
"""As a share of the eps of the threat: far shorter than a step of an attack."""

FAR_APART = 0.5
"""Of the larger of the two, in absolute value."""

DIGITS = 1e-5
"""Below this share of the largest logit a difference of logits is rounding."""


@dataclass(frozen=True)
class Slopes:
    """By how much a step changes the margin: as the gradient says, and as it does; and what would
    be rounding. All (M,)."""

    predicted: Tensor
    measured: Tensor
    rounding: Tensor

    @property
    def apart(self) -> Tensor:
        """(M,) bool: the gradient is wrong by more than half, and not by rounding."""
        larger = torch.maximum(self.predicted.abs(), self.measured.abs())
        gap = (self.predicted - self.measured).abs()
        return (gap > FAR_APART * larger) & (gap > self.rounding)

    @classmethod
    def none(cls) -> "Slopes":
        return cls(torch.zeros(0), torch.zeros(0), torch.zeros(0))

    @classmethod
    def joined(cls, parts: "list[Slopes]") -> "Slopes":
        columns = zip(*((p.predicted, p.measured, p.rounding) for p in parts), strict=True)
        return cls(*(torch.cat(column).cpu() for column in columns))


def slopes_at(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Slopes:
    """At images `x` (B, C, H, W) of classes `y` (B,): a short step to either side along the
    gradient's sign.

    Pixels at the edge of the box stay, since a model may clamp them.
    """
    of_margin = partial(margin, y=y)
    gradient, _, logits = input_gradient(model, x, of_margin)
    step = STEP * threat.eps
    pixels = x[0].numel()
    pixel = step / {"Linf": 1.0, "L2": pixels**0.5, "L1": float(pixels)}[threat.norm]
    inside = (x > pixel) & (x < 1 - pixel)
    delta = pixel * gradient.sign() * inside
    after, before = forward(model, x + delta), forward(model, x - delta)
    measured = of_margin(after) - of_margin(before)
    predicted = 2 * (gradient * delta).flatten(1).sum(dim=1)
    return Slopes(predicted, measured, DIGITS * logits.abs().amax(dim=1))
