"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import conv, global_average, require_size, stage, stem_stride


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3 x 3 convolutions; a projection shortcut starts after
    the first ReLU."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = conv(width_in, width_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.conv2 = conv(width_out, width_out, 3)
        self.convShortcut = conv(width_in, width_out, 1, stride) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(out)
        out = F.relu(self.bn2(self.conv1(out)))
        total: Tensor = self.conv2(out) + shortcut
        return total


class WideStage(nn.Module):
    """Blocks in a row, under the name `layer` that they have in published files."""

    def __init__(self, width_in: int, width_out: int, count: int, stride: int) -> None:
        super().__init__()
        self.layer = stage(WideBlock, width_in, width_out, count, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `widen` wide.

    `head` is the name of the last layer in the state dict: "fc" comes last, as in files of
    RPAT_SOTAs, TRADES and RobustBench; "linear" comes first, as in files of RPAT_Benchmarks.
    """

    def __init__(
        self, depth: int, widen: int, channels: int, classes: int, head: str, stride: int = 1
    ) -> None:
        super().__init__()
        count = (depth - 4) // 6
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        classify = nn.Linear(widths[-1], classes)
        self.head = head
        if head == "linear":
            self.add_module(head, classify)
        self.conv1 = conv(channels, widths[0], 3, stride)
        self.block1 = WideStage(widths[0], widths[1], count, stride=1)
        self.block2 = WideStage(widths[1], widths[2], count, stride=2)
        self.block3 = WideStage(widths[2], widths[3], count, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        if head != "linear":
            self.add_module(head, classify)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.get_submodule(self.head)(global_average(F.relu(self.bn1(out))))
        return logits


def _initialize(net: nn.Module) -> None:
    """Normally distributed weights that preserve the variance of gradients (He et al. 2015, arXiv
    1502.01852), as in the published code."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def wrn_28_10(channels: int, image_size: int, classes: int) -> nn.Module:
    """36.5 M parameters, named as in RPAT_Benchmarks. Raises `ConfigError` for images under 4 x
    4."""
    require_size("wrn-28-10", image_size, at_least=4)
    return WideResNet(28, 10, channels, classes, head="linear", stride=stem_stride(image_size))


def wrn_34_10(channels: int, image_size: int, classes: int) -> nn.Module:
    """46.2 M parameters, named as in RPAT_SOTAs. Raises `ConfigError` for images under 4 x 4."""
    require_size("wrn-34-10", image_size, at_least=4)
    return WideResNet(34, 10, channels, classes, head="fc")
