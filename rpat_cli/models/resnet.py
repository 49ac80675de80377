"""ResNets for small images (He et al. 2016, arXiv 1512.03385): a 3 x 3 stem, and no pooling before
the stages."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import (
    RESNET_WIDTHS,
    BlockBuilder,
    conv,
    global_average,
    require_size,
    stages,
    stem_stride,
)


def _projection(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    """The shortcut: the identity, or a 1 x 1 convolution where width or image size change."""
    if stride == 1 and width_in == width_out:
        return nn.Sequential()
    return nn.Sequential(conv(width_in, width_out, 1, stride), nn.BatchNorm2d(width_out))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(width_in, width_out, 3, stride)
        self.conv2 = conv(width_out, width_out, 3)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut = _projection(width_in, width_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1 to a quarter of the width, 3 x 3, 1 x 1 back to the width, and a shortcut."""

    expansion = 4

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = width_out // self.expansion
        self.conv1 = conv(width_in, inner, 1)
        self.conv2 = conv(inner, inner, 3, stride)
        self.conv3 = conv(inner, width_out, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.shortcut = _projection(width_in, width_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, four stages of `counts` blocks, global average, linear head; `linear` comes first in
    the state dict, as in files of RPAT_Benchmarks."""

    def __init__(
        self,
        block: BlockBuilder,
        expansion: int,
        channels: int,
        classes: int,
        stride: int = 1,
        counts: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(512 * expansion, classes)
        self.conv1 = conv(channels, 64, 3, stride)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [expansion * width for width in RESNET_WIDTHS]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(block, 64, widths, counts)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.linear(global_average(out))
        return logits


def resnet18(channels: int, image_size: int, classes: int) -> nn.Module:
    """The usual ResNet-18 with basic blocks: 11.17 M parameters. Raises `ConfigError` for images
    under 8 x 8."""
    require_size("resnet18", image_size, at_least=8)
    return ResNet(BasicBlock, 1, channels, classes)


def resnet18_bottleneck(channels: int, image_size: int, classes: int) -> nn.Module:
    """The network that RPAT_Benchmarks calls resnet18: two bottleneck blocks a stage, 13.96 M
    parameters.

    Raises `ConfigError` for images under 8 x 8.
    """
    require_size("resnet18-bottleneck", image_size, at_least=8)
    return ResNet(Bottleneck, Bottleneck.expansion, channels, classes, stem_stride(image_size))


def resnet50(channels: int, image_size: int, classes: int) -> nn.Module:
    """23.5 M parameters, named as in RobustBench's files. Raises `ConfigError` for images under
    8 x 8."""
    require_size("resnet50", image_size, at_least=8)
    return ResNet(Bottleneck, Bottleneck.expansion, channels, classes, counts=(3, 4, 6, 3))
