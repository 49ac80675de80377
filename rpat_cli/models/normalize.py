"""The classifier that everything else works with: pixels in, logits out, normalization inside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rpat_cli.errors import ConfigError
from rpat_cli.text import wrong_constants


class Classifier(nn.Module):
    """`net` behind its normalization: logits (B, classes) = net((x - mean) / std) for x (B, C, H,
    W) in [0, 1].

    `mean` and `std` (one value per channel, in the units of x) are buffers: saved with the weights,
    moved with them, never trained. Normalization inside the model means that every attack works on
    pixels in [0, 1], whatever the model was trained with. Raises `ConfigError` for a `mean` and
    `std` of different lengths, a `std` that is not positive, and values for bytes in 0..255.
    """

    mean: Tensor
    std: Tensor

    keeps_images = True
    """A call never writes into x, whatever `net` does to what it gets: that is a new tensor."""

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ConfigError(
                f"mean and std need one value per channel each; given {len(mean)} and {len(std)}."
            )
        if problem := wrong_constants(mean, std):
            raise ConfigError(problem)
        self.net = net
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=dtype).view(-1, 1, 1))

    @property
    def constants(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`mean` and `std`, one value per channel."""
        return tuple(self.mean.flatten().tolist()), tuple(self.std.flatten().tolist())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits
