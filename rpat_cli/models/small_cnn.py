"""A network for laptops: adversarial training and AutoAttack take minutes on two CPU cores."""

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import conv, flatten, require_size

WIDTHS = (16, 16, 64)
"""On fashion-mini as robust as (16, 32, 64) with half the arithmetic; a narrower last layer costs
accuracy."""


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions of stride 2 with BatchNorm, pooled to 4 x 4, and a linear head.

    Every convolution halves the image, the first one too, since a small network spends almost all
    its time on the first, largest feature maps. 28 x 28 and 32 x 32 images end at exactly 4 x 4, so
    that pooling is only needed for other sizes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.convs = nn.ModuleList(
            conv(widths[i], widths[i + 1], 3, stride=2) for i in range(len(WIDTHS))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        self.linear = nn.Linear(16 * WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for convolve, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(convolve(x)))
        if x.shape[-2:] != (4, 4):
            x = F.adaptive_avg_pool2d(x, 4)
        logits: Tensor = self.linear(flatten(x))
        return logits


def small_cnn(channels: int, image_size: int, classes: int) -> nn.Module:
    """22 k parameters for one channel and 10 classes. Raises `ConfigError` for images under
    16 x 16."""
    require_size("small-cnn", image_size, at_least=16)
    return SmallCNN(channels, classes)
