"""Labels that are probabilities: CutMix, MixUp and label smoothing, a batch at a time, on the
device.

With several views, x is [view1; view2; ...], and a sample is mixed with the same partner, in the
same share, in each of them. Random numbers come from torch's global generator of the device that
holds the images.

Why not `torchvision.transforms.v2.CutMix` and `MixUp`: they draw one share and one box for a whole
batch, on the CPU, which a GPU would have to wait for; they mix every batch, without a probability;
and they know nothing of views.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor

from rpat_cli.registry import SETTINGS_OF_ENTRIES

Alpha = Annotated[
    float,
    Field(
        gt=0, le=1e6, description="both parameters of the Beta distribution of the mixing shares"
    ),
]
Probability = Annotated[
    float, Field(ge=0, le=1, description="probability that a sample is mixed at all")
]


class Mixing(Protocol):
    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        """From images x (views · B, C, H, W) in [0, 1] and label probabilities y (B, classes) to
        mixed ones of the same shapes."""
        ...


@dataclass(frozen=True)
class MixUp:
    """x = share · x + (1 - share) · partner, labels likewise (Zhang et al., ICLR 2018, arXiv
    1710.09412); share ~ Beta(alpha, alpha)."""

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    alpha: Alpha = 1.0
    probability: Probability = 1.0

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(y), device=x.device)
        share = _shares(self.alpha, self.probability, x, len(y))
        per_image = share.repeat(views).view(-1, 1, 1, 1)
        mixed = per_image * x + (1 - per_image) * _partners(x, partner, views)
        return mixed, _mixed_labels(y, partner, share)


@dataclass(frozen=True)
class CutMix:
    """Paste a box of a partner into every sample; mix the labels by area (Yun et al., ICCV 2019,
    arXiv 1905.04899).

    The box covers 1 - share of the area, share ~ Beta(alpha, alpha), around a uniformly random
    pixel. It is clipped at the border, and the labels follow the area that is left.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    alpha: Alpha = 1.0
    probability: Probability = 1.0

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(y), device=x.device)
        side = (1 - _shares(self.alpha, self.probability, x, len(y))).sqrt()
        rows, columns = _interval(x.shape[-2], side), _interval(x.shape[-1], side)
        box = rows.unsqueeze(2) & columns.unsqueeze(1)
        share = 1 - box.flatten(1).to(x.dtype).mean(dim=1)
        pasted = box.repeat(views, 1, 1).unsqueeze(1)
        mixed = torch.where(pasted, _partners(x, partner, views), x)
        return mixed, _mixed_labels(y, partner, share)


@dataclass(frozen=True)
class SoftLabels:
    """Classes (B,) int64 become probabilities (B, classes): smoothed (Szegedy et al., CVPR 2016,
    arXiv 1512.00567), then mixed together with the images.

    With smoothing s the true class has probability 1 - s + s / classes.
    """

    classes: int
    smoothing: float = 0.0
    mixing: Mixing | None = None

    def __call__(self, x: Tensor, y: Tensor, views: int = 1) -> tuple[Tensor, Tensor]:
        true = F.one_hot(y, self.classes).to(x.dtype)
        soft = true * (1 - self.smoothing) + self.smoothing / self.classes
        return (x, soft) if self.mixing is None else self.mixing(x, soft, views)


def _shares(alpha: float, probability: float, x: Tensor, count: int) -> Tensor:
    """How much of itself each sample keeps, (count,) in [0, 1]: Beta(alpha, alpha), or 1 for the
    samples that are not mixed."""
    parameter = torch.full((count,), alpha, device=x.device)
    # validate_args would wait for the GPU
    beta = torch.distributions.Beta(parameter, parameter, validate_args=False)
    share = beta.sample().to(x.dtype)
    mixes = torch.rand(count, device=x.device) < probability
    return torch.where(mixes, share, torch.ones_like(share))


def _partners(x: Tensor, partner: Tensor, views: int) -> Tensor:
    """x (views · B, ...) with every sample replaced by its partner in the same view."""
    return x.view(views, -1, *x.shape[1:])[:, partner].view_as(x)


def _mixed_labels(y: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    return share[:, None] * y + (1 - share[:, None]) * y[partner]


def _interval(length: int, side: Tensor) -> Tensor:
    """(B, length) bool: about side · length consecutive positions around a random center, clipped
    at the border. `side` (B,) is in [0, 1]."""
    size = (side * length).round().long()[:, None]
    first = torch.randint(length, (len(side), 1), device=side.device) - size // 2
    position = torch.arange(length, device=side.device)
    return (position >= first) & (position < first + size)
