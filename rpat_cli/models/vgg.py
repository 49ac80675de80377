"""VGG-16 for small images (Simonyan & Zisserman 2015, arXiv 1409.1556), with BatchNorm
throughout."""

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import require_size

GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3))
"""Width and number of convolutions; each group ends with a pooling."""


def _conv_unit(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, padding=1), nn.BatchNorm2d(width_out), nn.ReLU()
    )


def _linear_unit(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())


class VGG16(nn.Module):
    """Four groups `layerGI` (group G, convolution I), each pooled; then `layer6`, `layer7` and the
    head `layer8`.

    The fifth group of the original VGG-16 is missing, as in the network published with RPAT.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width_in = channels
        self.groups: list[list[str]] = []
        for g, (width, count) in enumerate(GROUPS, start=1):
            self.groups.append([f"layer{g}{i}" for i in range(1, count + 1)])
            for name in self.groups[-1]:
                self.add_module(name, _conv_unit(width_in, width))
                width_in = width
        self.layer6 = _linear_unit(width_in)
        self.layer7 = _linear_unit(width_in)
        self.layer8 = nn.Linear(width_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        for group in self.groups:
            for name in group:
                x = self.get_submodule(name)(x)
            x = F.max_pool2d(x, 2)
        x = F.max_pool2d(x, x.shape[-2:]).flatten(1)
        logits: Tensor = self.layer8(self.layer7(self.layer6(x)))
        return logits


def vgg16(channels: int, image_size: int, classes: int) -> nn.Module:
    """8.2 M parameters. Raises `ConfigError` for images under 16 x 16: four poolings halve them."""
    require_size("vgg16", image_size, at_least=16)
    return VGG16(channels, classes)
