"""Labels that are probabilities: CutMix, MixUp and label smoothing, a batch at a time, on the
device.

Random numbers come from torch's global generator of the device that holds the images, one set for
every sample. With several views, x is [view1; view2; ...] and a sample meets the same partner, in
the same share, in each of them.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor

Alpha = Annotated[
    float, Field(gt=0, description="both parameters of the Beta distribution of the shares")
]
Probability = Annotated[
    float, Field(ge=0, le=1, description="probability that a sample is mixed at all")
]


class Mixing(Protocol):
    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        """Mixed images (views · B, C, H, W) and labels (B, classes), from the same as they were."""
        ...


@dataclass(frozen=True)
class MixUp:
    """Every sample becomes share · itself + (1 - share) · another one (Zhang et al., ICLR 2018)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    alpha: Alpha = 1.0
    probability: Probability = 1.0

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(y), device=x.device)
        share = _shares(self.alpha, self.probability, x, len(y))
        per_image = share.repeat(views).view(-1, 1, 1, 1)
        return per_image * x + (1 - per_image) * _partners(x, partner, views), _mixed(
            y, partner, share
        )


@dataclass(frozen=True)
class CutMix:
    """A box of another sample is pasted into every one; labels by area (Yun et al., ICCV 2019).

    The box has 1 - share of the area around a uniformly random pixel; what lies beyond the border
    is cut off, and the labels follow what is left.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    alpha: Alpha = 1.0
    probability: Probability = 1.0

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(y), device=x.device)
        side = (1 - _shares(self.alpha, self.probability, x, len(y))).sqrt()
        rows, columns = _interval(x.shape[-2], side), _interval(x.shape[-1], side)
        box = rows.unsqueeze(2) & columns.unsqueeze(1)
        share = 1 - box.flatten(1).to(x.dtype).mean(dim=1)
        pasted = box.repeat(views, 1, 1).unsqueeze(1)
        return torch.where(pasted, _partners(x, partner, views), x), _mixed(y, partner, share)


@dataclass(frozen=True)
class SoftLabels:
    """Classes (B,) become probabilities (B, classes): smoothed (Szegedy et al., CVPR 2016), then
    mixed with images.

    With smoothing s the true class has probability 1 - s + s / classes.
    """

    classes: int
    smoothing: float = 0.0
    mixing: Mixing | None = None

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        soft = (
            F.one_hot(y, self.classes).to(x.dtype) * (1 - self.smoothing)
            + self.smoothing / self.classes
        )
        return (x, soft) if self.mixing is None else self.mixing(x, soft, views)


def _shares(alpha: float, probability: float, x: Tensor, count: int) -> Tensor:
    """(count,) how much of itself each sample keeps: Beta(alpha, alpha), or all of it where it is
    not to be mixed."""
    both = torch.full((count,), alpha, device=x.device)
    share = (
        torch.distributions.Beta(both, both, validate_args=False).sample().to(x.dtype)
    )  # a check waits for the GPU
    return torch.where(
        torch.rand(count, device=x.device) < probability, share, torch.ones_like(share)
    )


def _partners(x: Tensor, partner: Tensor, views: int) -> Tensor:
    """x (views · B, ...) with every sample replaced by its partner in the same view."""
    return x.view(views, -1, *x.shape[1:])[:, partner].view_as(x)


def _mixed(y: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    return share[:, None] * y + (1 - share[:, None]) * y[partner]


def _interval(length: int, side: Tensor) -> Tensor:
    """(B, length) bool: a run of about side · length positions around a random centre, cut off at
    the borders."""
    size = (side * length).round().long()[:, None]
    first = torch.randint(length, (len(side), 1), device=side.device) - size // 2
    position = torch.arange(length, device=side.device)
    return (position >= first) & (position < first + size)
