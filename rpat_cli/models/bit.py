"""BiT-M-R152x2 (Kolesnikov et al. 2020, arXiv 1912.11370): GroupNorm and standardized weights, made
for images of 128 x 128 pixels."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import global_average, require_size

GROUPS = 32
SIDE = 128
COUNTS = (3, 8, 36, 3)
WIDTHS = (512, 1024, 2048, 4096)


class StandardizedConv2d(nn.Conv2d):
    """The weights of each output channel have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        mean, variance = flat.mean(dim=1), flat.var(dim=1, unbiased=False)
        weight = (flat - mean[:, None]) / (variance[:, None] + 1e-10).sqrt()
        out: Tensor = self._conv_forward(x, weight.view_as(self.weight), self.bias)
        return out


def _conv(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    padding = kernel // 2
    return StandardizedConv2d(width_in, width_out, kernel, stride, padding, bias=False)


class BiTUnit(nn.Module):
    """GroupNorm and ReLU before each of three convolutions; a projection shortcut starts after the
    first ReLU."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = width_out // 4
        self.gn1 = nn.GroupNorm(GROUPS, width_in)
        self.conv1 = _conv(width_in, inner, 1)
        self.gn2 = nn.GroupNorm(GROUPS, inner)
        self.conv2 = _conv(inner, inner, 3, stride)
        self.gn3 = nn.GroupNorm(GROUPS, inner)
        self.conv3 = _conv(inner, width_out, 1)
        projects = stride != 1 or width_in != width_out
        self.downsample = _conv(width_in, width_out, 1, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.gn1(x))
        shortcut: Tensor = x if self.downsample is None else self.downsample(first)
        out = self.conv2(F.relu(self.gn2(self.conv1(first))))
        total: Tensor = self.conv3(F.relu(self.gn3(out))) + shortcut
        return total


class BiTResNet(nn.Module):
    """Images of any size (B, C, H, W) are resized to 128 x 128 first."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = 128
        stem = StandardizedConv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.root = nn.Sequential(OrderedDict(conv=stem))
        self.body = nn.Sequential()
        for b, (count, width_out) in enumerate(zip(COUNTS, WIDTHS, strict=True), start=1):
            block = nn.Sequential()
            for u in range(1, count + 1):
                stride = 2 if b > 1 and u == 1 else 1
                block.add_module(f"unit{u:02d}", BiTUnit(width, width_out, stride))
                width = width_out
            self.body.add_module(f"block{b}", block)
        norm, classify = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, classes, 1)
        self.head = nn.ModuleDict({"gn": norm, "conv": classify})

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        out = F.max_pool2d(F.pad(self.root(x), (1, 1, 1, 1)), 3, stride=2)
        out = F.relu(self.head["gn"](self.body(out)))
        average = global_average(out)[..., None, None]
        logits: Tensor = self.head["conv"](average)
        return logits.flatten(1)


def bit_r152x2(channels: int, image_size: int, classes: int) -> nn.Module:
    """232.2 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("bit-r152x2-gn-128px", image_size, at_least=8)
    return BiTResNet(channels, classes)
