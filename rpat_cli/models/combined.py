"""Networks around networks, as RobustBench's entries have them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The logarithm of the mean of the members' probabilities, (B, classes).

    The published ensembles return the probabilities themselves. Their logarithm has the same order
    and its softmax is those probabilities, but a loss of it sees no second softmax, which would
    hide gradients.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        members = torch.stack([member(x).log_softmax(dim=1) for member in self.members])
        return members.logsumexp(dim=0) - math.log(len(self.members))


PER_IMAGE = "per-image"
"""The normalization of a `PerImage`, in the place of constants."""


def constants_text(normalization: str) -> str:
    """The constants beside it, as `rpat_cli.data.normalization` takes them."""
    return "none" if normalization == PER_IMAGE else normalization


def standardizing(net: nn.Module, normalization: str) -> nn.Module:
    """The network, which standardizes its images itself where no constants do."""
    return PerImage(net) if normalization == PER_IMAGE else net


class PerImage(nn.Module):
    """A network of images (B, C, H, W) that are standardized one by one: minus the mean over all
    values of the image, divided by their standard deviation, or by 1 / sqrt(their number) where
    that is larger (Ding et al. 2020, arXiv 1812.02637)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1)
        least = 1 / math.sqrt(values.shape[1])
        mean, std = values.mean(dim=1), values.std(dim=1).clamp(min=least)
        standardized = (x - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
        logits: Tensor = self.net(standardized)
        return logits
