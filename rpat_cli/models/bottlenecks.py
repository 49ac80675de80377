"""Networks of bottleneck blocks in RobustBench: with pre-activation, with groups (ResNeXt), and
with squeeze-and-excitation for large images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from rpat_cli.models.layers import RESNET_WIDTHS, conv, global_average, require_size, stages

EXPANSION = 4


class PreActBottleneck(nn.Module):
    """BatchNorm and ReLU before each of three convolutions, nothing after the sum; a projection
    shortcut starts after the first ReLU and has a BatchNorm."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = width_out // EXPANSION
        self.bn0 = nn.BatchNorm2d(width_in)
        self.conv1 = conv(width_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, width_out, 1)
        self.shortcut: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                conv(width_in, width_out, 1, stride), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.bn0(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(first)
        out = F.relu(self.bn1(self.conv1(first)))
        out = F.relu(self.bn2(self.conv2(out)))
        total: Tensor = self.conv3(out) + shortcut
        return total


class PreActBottleneck50(nn.Module):
    """ResNet-50 of such blocks, with BatchNorm and ReLU in the stem and none before the average
    (Chen et al. 2020, arXiv 2003.12862)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [EXPANSION * width for width in RESNET_WIDTHS]
        made = stages(PreActBottleneck, 64, widths, counts=(3, 4, 6, 3))
        self.layer1, self.layer2, self.layer3, self.layer4 = made
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.linear(global_average(out))
        return logits


class ResNeXtBlock(nn.Module):
    """1 x 1 to twice a quarter of the width, 3 x 3 in four groups, 1 x 1 to the width, and a
    shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        inner = width_out // 2
        self.conv_reduce = conv(width_in, inner, 1)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_conv = conv(inner, inner, 3, stride, groups=4)
        self.bn = nn.BatchNorm2d(inner)
        self.conv_expand = conv(inner, width_out, 1)
        self.bn_expand = nn.BatchNorm2d(width_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.downsample = nn.Sequential(
                conv(width_in, width_out, 1, stride), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn_reduce(self.conv_reduce(x)))
        out = F.relu(self.bn(self.conv_conv(out)))
        return F.relu(self.bn_expand(self.conv_expand(out)) + shortcut)


class ResNeXt29(nn.Module):
    """ResNeXt-29 32x4d (Xie et al. 2017, arXiv 1611.05431), as AugMix trains it (Hendrycks et al.
    2020, arXiv 1912.02781)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv_1_3x3 = conv(channels, 64, 3)
        self.bn_1 = nn.BatchNorm2d(64)
        self.stage_1, self.stage_2, self.stage_3 = stages(
            ResNeXtBlock, 64, widths=(256, 512, 1024), counts=(3, 3, 3)
        )
        self.classifier = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn_1(self.conv_1_3x3(x)))
        out = self.stage_3(self.stage_2(self.stage_1(out)))
        logits: Tensor = self.classifier(global_average(out))
        return logits


class _Branch(nn.Module):
    """1 x 1, 3 x 3 in groups, squeeze-and-excitation, 1 x 1; the first 1 x 1 has no BatchNorm, and
    its SiLU is the block's."""

    def __init__(self, width_in: int, width_out: int, stride: int, per_group: int) -> None:
        super().__init__()
        inner = width_out // EXPANSION
        self.a = nn.Sequential(conv(width_in, inner, 1), nn.Identity(), nn.SiLU())
        grouped = conv(inner, inner, 3, stride, groups=inner // per_group)
        self.b = nn.Sequential(grouped, nn.BatchNorm2d(inner), nn.SiLU())
        self.se = SqueezeExcitation(inner, round(0.25 * width_in))
        self.c = nn.Sequential(conv(inner, width_out, 1), nn.BatchNorm2d(width_out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.se(self.b(self.a(x))))
        return out


class RobustBottleneck(nn.Module):
    """A projection `proj` where width or image size change, a branch `F`, and SiLU after the
    sum."""

    def __init__(self, width_in: int, width_out: int, stride: int, per_group: int) -> None:
        super().__init__()
        self.proj: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.proj = nn.Sequential(
                conv(width_in, width_out, 1, stride), nn.BatchNorm2d(width_out)
            )
        self.F = _Branch(width_in, width_out, stride, per_group)

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = x if self.proj is None else self.proj(x)
        return F.silu(shortcut + self.F(x))


class _Stem(nn.Module):
    """Under the name `stem` that its layers have in published files, twice."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stem(x)
        return out


class RobustWideResNet101(nn.Module):
    """Stages of bottlenecks, each of which halves the image (Peng et al. 2023, arXiv
    2308.16258)."""

    counts: Sequence[int] = (7, 11, 18, 1)
    widths: Sequence[int] = (512, 1024, 2016, 4032)
    per_group: Sequence[int] = (64, 128, 252, 504)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = 96
        first = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        layers = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU())
        self.stem = _Stem(_Stem(layers))
        self.stages = nn.Sequential()
        rows = zip(self.counts, self.widths, self.per_group, strict=True)
        for number, (count, width_out, per_group) in enumerate(rows, start=1):
            made = nn.Sequential()
            for i in range(count):
                block = RobustBottleneck(width, width_out, 2 if i == 0 else 1, per_group)
                made.add_module(f"stage{number}-block{i}", block)
                width = width_out
            self.stages.add_module(f"stage{number}", made)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(global_average(self.stages(self.stem(x))))
        return logits


def preact_bottleneck50(channels: int, image_size: int, classes: int) -> nn.Module:
    """23.5 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("preact-bottleneck-50", image_size, at_least=8)
    return PreActBottleneck50(channels, classes)


def resnext29(channels: int, image_size: int, classes: int) -> nn.Module:
    """6.8 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("resnext-29-32x4", image_size, at_least=8)
    return ResNeXt29(channels, classes)


def ra_wrn_101_2(channels: int, image_size: int, classes: int) -> nn.Module:
    """104.1 M parameters, for images of ImageNet's size. Raises `ConfigError` for images under
    8 x 8."""
    require_size("ra-wrn-101-2", image_size, at_least=8)
    return RobustWideResNet101(channels, classes)
