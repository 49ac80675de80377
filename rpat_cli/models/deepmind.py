"""DeepMind's layouts of wide and pre-activation ResNets (Gowal et al. 2020, arXiv 2010.03593;
Rebuffi et al. 2021, arXiv 2103.01946), and the networks that others have built on them.

They are not TRADES' networks under other names: where the image is halved, the convolution is
padded on the right and at the bottom only, as TensorFlow's "SAME" does, so the same weights give
other logits.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from rpat_cli.models.activations import Activation, activation_of
from rpat_cli.models.layers import (
    RESNET_WIDTHS,
    BlockBuilder,
    conv,
    global_average,
    named,
    require_size,
    stages,
)
from rpat_cli.models.mean_sparse import MeanSparse

PartOfBlock = Callable[[int], nn.Module]
"""From a width to a module that keeps the shape (B, C, H, W)."""

RA_REDUCTION = 0.25
"""The share of the channels in the middle of a squeeze-and-excitation."""


def nothing(width: int) -> nn.Module:  # noqa: ARG001
    """In place of a part that a network does not have."""
    return nn.Identity()


def squeeze_excitation(width: int) -> nn.Module:
    """Hu et al. 2018, arXiv 1709.01507."""
    module: nn.Module = SqueezeExcitation(width, round(RA_REDUCTION * width))
    return module


def padded(x: Tensor, stride: int) -> Tensor:
    """The images (B, C, H, W) as an unpadded 3 x 3 convolution of this stride takes them."""
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


def _unpadded(width_in: int, width_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, stride, bias=False)


class DMWideBlock(nn.Module):
    """BatchNorm and activation before each of two 3 x 3 convolutions; a projection shortcut starts
    after the first activation.

    `excite` comes last in the branch, `sparsify` after each BatchNorm and after the sum.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        activation: Activation,
        norm: PartOfBlock = nn.BatchNorm2d,
        sparsify: PartOfBlock = nothing,
        excite: PartOfBlock = nothing,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.activation = activation
        self.batchnorm_0 = norm(width_in)
        self.meansparse_0 = sparsify(width_in)
        self.conv_0 = _unpadded(width_in, width_out, stride)
        self.batchnorm_1 = norm(width_out)
        self.meansparse_1 = sparsify(width_out)
        self.conv_1 = conv(width_out, width_out, 3)
        self.shortcut = conv(width_in, width_out, 1, stride) if width_in != width_out else None
        self.se = excite(width_out)
        self.meansparse_2 = sparsify(width_out)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.meansparse_0(self.batchnorm_0(x)))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(out)
        out = self.conv_0(padded(out, self.stride))
        out = self.activation(self.meansparse_1(self.batchnorm_1(out)))
        total: Tensor = self.meansparse_2(self.se(self.conv_1(out)) + shortcut)
        return total


class DMWideResNet(nn.Module):
    """Stem, three groups of blocks, BatchNorm, activation, global average, linear head."""

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        stem: int,
        counts: Sequence[int],
        widths: Sequence[int],
        activation: Activation,
        norm: PartOfBlock = nn.BatchNorm2d,
        sparsify: PartOfBlock = nothing,
        excite: PartOfBlock = nothing,
    ) -> None:
        super().__init__()
        block: BlockBuilder = partial(
            DMWideBlock, activation=activation, norm=norm, sparsify=sparsify, excite=excite
        )
        self.activation = activation
        self.init_conv = conv(channels, stem, 3)
        self.layer = nn.Sequential(
            *(named("block", part) for part in stages(block, stem, widths, counts))
        )
        self.batchnorm = norm(widths[-1])
        self.meansparse_end = sparsify(widths[-1])
        self.logits = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.meansparse_end(self.batchnorm(self.layer(self.init_conv(x))))
        logits: Tensor = self.logits(global_average(self.activation(out)))
        return logits


class DMPreActBlock(nn.Module):
    """The same for ResNet-18, but the projection shortcut is a padded 3 x 3 convolution of the
    block's input."""

    def __init__(self, width_in: int, width_out: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.stride = stride
        self.activation = activation
        self.batchnorm_0 = nn.BatchNorm2d(width_in)
        self.conv_2d_1 = _unpadded(width_in, width_out, stride)
        self.batchnorm_1 = nn.BatchNorm2d(width_out)
        self.conv_2d_2 = conv(width_out, width_out, 3)
        projects = stride != 1 or width_in != width_out
        self.shortcut = _unpadded(width_in, width_out, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(padded(x, self.stride))
        out = self.activation(self.batchnorm_0(x))
        out = self.conv_2d_1(padded(out, self.stride))
        total: Tensor = self.conv_2d_2(self.activation(self.batchnorm_1(out))) + shortcut
        return total


class DMPreActResNet18(nn.Module):
    """Stem, four stages of two blocks, BatchNorm, activation, global average, linear head."""

    def __init__(self, channels: int, classes: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv_2d = conv(channels, 64, 3)
        block = partial(DMPreActBlock, activation=activation)
        made = stages(block, 64, RESNET_WIDTHS, counts=(2, 2, 2, 2))
        self.layer_0, self.layer_1, self.layer_2, self.layer_3 = made
        self.batchnorm = nn.BatchNorm2d(RESNET_WIDTHS[-1])
        self.logits = nn.Linear(RESNET_WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_2d(x)
        for layer in (self.layer_0, self.layer_1, self.layer_2, self.layer_3):
            out = layer(out)
        logits: Tensor = self.logits(global_average(self.activation(self.batchnorm(out))))
        return logits


def dm_wide_resnet(
    channels: int,
    image_size: int,
    classes: int,
    *,
    name: str,
    depth: int,
    width: int,
    activation: str = "relu",
    meansparse: bool = False,
) -> nn.Module:
    """`dm-wrn-DEPTH-WIDTH` and its variants, named as in DeepMind's files. Raises `ConfigError` for
    images under 4 x 4."""
    require_size(name, image_size, at_least=4)
    return DMWideResNet(
        *(channels, classes),
        stem=16,
        counts=[(depth - 4) // 6] * 3,
        widths=(16 * width, 32 * width, 64 * width),
        activation=activation_of(activation),
        sparsify=MeanSparse if meansparse else nothing,
    )


def dm_preact_resnet18(
    channels: int, image_size: int, classes: int, *, name: str, activation: str = "relu"
) -> nn.Module:
    """12.5 M parameters, named as in DeepMind's files. Raises `ConfigError` for images under
    8 x 8."""
    require_size(name, image_size, at_least=8)
    return DMPreActResNet18(channels, classes, activation_of(activation))


def ra_wrn_70_16(
    channels: int,
    image_size: int,
    classes: int,
    *,
    name: str = "ra-wrn-70-16",
    meansparse: bool = False,
) -> nn.Module:
    """267.2 M parameters: a wider stem, a shallow last group, squeeze-and-excitation (Peng et al.
    2023, arXiv 2308.16258). Raises `ConfigError` for images under 8 x 8."""
    require_size(name, image_size, at_least=8)
    return DMWideResNet(
        *(channels, classes),
        stem=96,
        counts=(30, 31, 10),
        widths=(216, 432, 864),
        activation=activation_of("silu"),
        norm=partial(nn.BatchNorm2d, momentum=0.01),
        sparsify=MeanSparse if meansparse else nothing,
        excite=squeeze_excitation,
    )


def meansparse_ra_wrn_70_16(channels: int, image_size: int, classes: int) -> nn.Module:
    """The same with sparsifiers."""
    name = "meansparse-ra-wrn-70-16"
    return ra_wrn_70_16(channels, image_size, classes, name=name, meansparse=True)
