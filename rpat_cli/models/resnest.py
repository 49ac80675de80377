"""ResNeSt (Zhang et al. 2020, arXiv 2004.08955) for small images, with SiLU throughout, as Sehwag
et al. 2021 (arXiv 2104.09425) train it."""

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.layers import RESNET_WIDTHS, conv, global_average, require_size, stages

RADIX = 4
EXPANSION = 4


class SplitAttention(nn.Module):
    """A 3 x 3 convolution to four groups of `width` channels, whose sum is weighted: for each
    channel, by the softmax over the groups of what a small network makes of their average."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, RADIX * width, 3, groups=RADIX)
        self.bn0 = nn.BatchNorm2d(RADIX * width)
        self.fc1 = nn.Conv2d(width, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.fc2 = nn.Conv2d(width, RADIX * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        groups = _in_groups(F.silu(self.bn0(self.conv(x))))
        average = groups.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        weights = _in_groups(self.fc2(F.silu(self.bn1(self.fc1(average)))))
        total: Tensor = (weights.softmax(dim=1) * groups).sum(dim=1)
        return total


def _in_groups(x: Tensor) -> Tensor:
    """(B, RADIX * width, H, W) -> (B, RADIX, width, H, W)"""
    return x.view(len(x), RADIX, -1, *x.shape[2:])


class ResNeStBlock(nn.Module):
    """1 x 1 to a quarter of the width, split attention, 1 x 1 to the width, and a shortcut. Image
    sizes change by averages, in the branch and in the shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = width_out // EXPANSION
        self.conv1 = conv(width_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = SplitAttention(inner)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride != 1 else nn.Identity()
        self.conv3 = conv(inner, width_out, 1)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                conv(width_in, width_out, 1),
                nn.BatchNorm2d(width_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out = F.silu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.pool(self.conv2(out))))
        return F.silu(out + shortcut)


class ResNeSt152(nn.Module):
    """A stem of three convolutions, four stages, global average, linear head."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            *(conv(channels, 64, 3), nn.BatchNorm2d(64), nn.SiLU()),
            *(conv(64, 64, 3), nn.BatchNorm2d(64), nn.SiLU()),
            conv(64, 128, 3),
        )
        self.bn1 = nn.BatchNorm2d(128)
        widths = [EXPANSION * width for width in RESNET_WIDTHS]
        made = stages(ResNeStBlock, 128, widths, counts=(3, 8, 36, 3))
        self.layer1, self.layer2, self.layer3, self.layer4 = made
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.fc(global_average(out))
        return logits


def resnest152(channels: int, image_size: int, classes: int) -> nn.Module:
    """74.9 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("resnest-152", image_size, at_least=8)
    return ResNeSt152(channels, classes)
