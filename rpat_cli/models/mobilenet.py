"""MobileNetV2 for small images (Sandler et al. 2018, arXiv 1801.04381): its first layers have
stride 1."""

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import conv, global_average, require_size

STAGES = (  # expansion, width out, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1 x 1 to a larger width, depthwise 3 x 3, 1 x 1 back without a last ReLU; a shortcut wherever
    the image keeps its size.

    (The original has a shortcut only where the width stays the same, too.)
    """

    def __init__(self, width_in: int, width_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * width_in
        self.conv1 = conv(width_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, width_out, 1)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.keeps_size = stride == 1
        self.shortcut = nn.Sequential()
        if self.keeps_size and width_in != width_out:
            self.shortcut = nn.Sequential(conv(width_in, width_out, 1), nn.BatchNorm2d(width_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        out: Tensor = self.bn3(self.conv3(inner))
        return out + self.shortcut(x) if self.keeps_size else out


class MobileNetV2(nn.Module):
    """Stem, seventeen inverted residual blocks, 1 x 1 to 1280 channels, global average, linear
    head."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        self.layers = nn.Sequential(*_blocks(32))
        self.conv2 = conv(320, 1280, 1)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(global_average(out))
        return logits


def _blocks(width: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for expansion, width_out, count, stride in STAGES:
        for i in range(count):
            first = i == 0  # only the first block of a stage changes the image size
            blocks.append(InvertedResidual(width, width_out, expansion, stride if first else 1))
            width = width_out
    return blocks


def mobilenet_v2(channels: int, image_size: int, classes: int) -> nn.Module:
    """2.3 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("mobilenet-v2", image_size, at_least=8)
    return MobileNetV2(channels, classes)
