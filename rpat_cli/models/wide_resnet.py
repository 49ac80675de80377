"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146), as TRADES builds them, and
the published networks that vary them."""

import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.activations import Activation, activation_of
from rpat_cli.models.layers import (
    BlockBuilder,
    conv,
    global_average,
    named,
    require_size,
    stage,
    stages,
    stem_stride,
)
from rpat_cli.models.preact_resnet import PreActBlock


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3 x 3 convolutions; a projection shortcut starts after
    the first ReLU."""

    def __init__(
        self, width_in: int, width_out: int, stride: int, activation: Activation = F.relu
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.activation = activation
        self.conv1 = conv(width_in, width_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.conv2 = conv(width_out, width_out, 3)
        self.convShortcut = conv(width_in, width_out, 1, stride) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(out)
        out = self.activation(self.bn2(self.conv1(out)))
        total: Tensor = self.conv2(out) + shortcut
        return total


class UnitLinear(nn.Linear):
    """Cosines: features (B, F) and each row of the weights are scaled to length 1 (Pang et al.
    2020, arXiv 2002.08619)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `widen` wide.

    `head` is the name of the last layer in the state dict: "fc" comes last, as in files of
    RPAT_SOTAs, TRADES and RobustBench; "linear" comes first, as in files of RPAT_Benchmarks.
    `sub`: with the second copy of `block1` that TRADES' networks have, and never use.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        channels: int,
        classes: int,
        head: str,
        stride: int = 1,
        activation: Activation = F.relu,
        sub: bool = False,
        hypersphere: bool = False,
    ) -> None:
        super().__init__()
        count = (depth - 4) // 6
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        block = partial(WideBlock, activation=activation)
        classify = (UnitLinear if hypersphere else nn.Linear)(widths[-1], classes)
        self.head = head
        if head == "linear":
            self.add_module(head, classify)
        self.conv1 = conv(channels, widths[0], 3, stride)
        first, second, third = stages(block, widths[0], widths[1:], [count] * 3)
        self.block1 = named("layer", first)
        if sub:
            self.sub_block1 = named("layer", stage(block, widths[0], widths[1], count, stride=1))
        self.block2, self.block3 = named("layer", second), named("layer", third)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.activation = activation
        if head != "linear":
            self.add_module(head, classify)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        features = global_average(self.activation(self.bn1(out)))
        logits: Tensor = self.get_submodule(self.head)(features)
        return logits


class StagedWideResNet(nn.Module):
    """The same with stages of any `counts` and `widths` under the names of other published files;
    `norm` is what they call the last BatchNorm."""

    def __init__(
        self,
        block: BlockBuilder,
        counts: Sequence[int],
        widths: Sequence[int],
        channels: int,
        classes: int,
        norm: str,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.stem_conv = conv(channels, 16, 3)
        self.blocks = nn.ModuleList(
            named("layer", part) for part in stages(block, 16, widths, counts)
        )
        self.norm = norm
        self.add_module(norm, nn.BatchNorm2d(widths[-1]))
        self.activation = activation
        self.fc = nn.Linear(widths[-1], classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem_conv(x)
        for block in self.blocks:
            out = block(out)
        out = self.activation(self.get_submodule(self.norm)(out))
        logits: Tensor = self.fc(global_average(out))
        return logits


def _initialize(net: nn.Module) -> None:
    """Normally distributed weights that preserve the variance of gradients (He et al. 2015, arXiv
    1502.01852), as in the published code."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def wide_resnet(
    channels: int,
    image_size: int,
    classes: int,
    *,
    name: str,
    depth: int,
    width: int,
    activation: str = "relu",
    sub: bool = False,
    hypersphere: bool = False,
) -> nn.Module:
    """`wrn-DEPTH-WIDTH` and its variants, named as in TRADES and RobustBench. Raises `ConfigError`
    for images under 4 x 4."""
    require_size(name, image_size, at_least=4)
    return WideResNet(
        *(depth, width, channels, classes),
        head="fc",
        activation=activation_of(activation),
        sub=sub,
        hypersphere=hypersphere,
    )


def wrn_28_10(channels: int, image_size: int, classes: int) -> nn.Module:
    """36.5 M parameters, named as in RPAT_Benchmarks. Raises `ConfigError` for images under 4 x
    4."""
    require_size("wrn-28-10", image_size, at_least=4)
    return WideResNet(28, 10, channels, classes, head="linear", stride=stem_stride(image_size))


def wrn_34_10(channels: int, image_size: int, classes: int) -> nn.Module:
    """46.2 M parameters, named as in RPAT_SOTAs. Raises `ConfigError` for images under 4 x 4."""
    return wide_resnet(channels, image_size, classes, name="wrn-34-10", depth=34, width=10)


def wrn_34_r(channels: int, image_size: int, classes: int) -> nn.Module:
    """68.1 M parameters: a narrower last stage (Huang et al. 2021, arXiv 2110.03825). Raises
    `ConfigError` for images under 8 x 8."""
    require_size("wrn-34-r", image_size, at_least=8)
    return StagedWideResNet(WideBlock, (5, 5, 5), (320, 640, 512), channels, classes, norm="bn1")


def wrn_a4_silu(channels: int, image_size: int, classes: int) -> nn.Module:
    """147.3 M parameters: deep and narrow, with SiLU (Huang et al. 2022, arXiv 2212.11005). Raises
    `ConfigError` for images under 8 x 8."""
    require_size("wrn-a4-silu", image_size, at_least=8)
    activation = activation_of("silu")
    return StagedWideResNet(
        partial(PreActBlock, activation=activation),
        *((27, 28, 13), (160, 448, 384), channels, classes),
        norm="norm1",
        activation=activation,
    )
