"""Pre-activation ResNet-18 (He et al. 2016, arXiv 1603.05027), in the two forms in which it was
published with RPAT, and in that of fast adversarial training."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.models.activations import Activation
from rpat_cli.models.layers import conv, global_average, require_size, resnet18_stages, stem_stride


class PreActBlock(nn.Module):
    """BatchNorm and ReLU *before* each of two 3 x 3 convolutions; a projection shortcut starts
    after the first ReLU.

    The published forms differ in where shortcuts start. An identity: at the block's input, as in
    the paper, or, with `activated_shortcut`, after the first ReLU as well; that form also lists its
    convolutions first in the state dict. A projection: with `input_shortcut`, at the block's input
    too.
    """

    bn1: nn.BatchNorm2d
    conv1: nn.Conv2d
    bn2: nn.BatchNorm2d
    conv2: nn.Conv2d

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        activated_shortcut: bool = False,
        input_shortcut: bool = False,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        parts: dict[str, nn.Module] = {
            "bn1": nn.BatchNorm2d(width_in),
            "conv1": conv(width_in, width_out, 3, stride),
            "bn2": nn.BatchNorm2d(width_out),
            "conv2": conv(width_out, width_out, 3),
        }
        # The order in which modules are added is the order of the published state dicts.
        published_order = ("conv1", "conv2", "bn1", "bn2") if activated_shortcut else tuple(parts)
        for name in published_order:
            self.add_module(name, parts[name])
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width_out:
            self.shortcut.append(conv(width_in, width_out, 1, stride))
        is_identity = len(self.shortcut) == 0
        self.shortcut_from_input = input_shortcut or (is_identity and not activated_shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        shortcut: Tensor = self.shortcut(x if self.shortcut_from_input else out)
        out = self.activation(self.bn2(self.conv1(out)))
        total: Tensor = self.conv2(out) + shortcut
        return total


class PreActResNet18(nn.Module):
    """As ReBAT and RPAT_SOTAs train it: a bare 3 x 3 stem, and one BatchNorm and ReLU before the
    global average."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 64, 3)
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet18_stages(PreActBlock)
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.linear(global_average(F.relu(self.bn(out))))
        return logits


class PreActResNet18Stem(nn.Module):
    """As RPAT_Benchmarks and Consistency-AT train it: BatchNorm and ReLU in the stem, none before
    the average."""

    def __init__(self, channels: int, image_size: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(512, classes)
        self.conv1 = conv(channels, 64, 3, stem_stride(image_size))
        self.bn1 = nn.BatchNorm2d(64)
        block = partial(PreActBlock, activated_shortcut=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet18_stages(block)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.linear(global_average(out))
        return logits


class PreActResNet18Fast(nn.Module):
    """As fast adversarial training has it (Wong et al. 2020, arXiv 2001.03994; Andriushchenko &
    Flammarion 2020, arXiv 2007.02617): all shortcuts start at the block's input, and nothing comes
    between the last block and the average."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 64, 3)
        block = partial(PreActBlock, input_shortcut=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet18_stages(block)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.linear(global_average(out))
        return logits


def preact_resnet18(channels: int, image_size: int, classes: int) -> nn.Module:
    """11.17 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("preact-resnet18", image_size, at_least=8)
    return PreActResNet18(channels, classes)


def preact_resnet18_stem(channels: int, image_size: int, classes: int) -> nn.Module:
    """11.17 M parameters; the published one ran on 64 x 64 only, this one also on smaller images.

    Raises `ConfigError` for images under 8 x 8.
    """
    require_size("preact-resnet18-stem", image_size, at_least=8)
    return PreActResNet18Stem(channels, image_size, classes)


def preact_resnet18_fast(channels: int, image_size: int, classes: int) -> nn.Module:
    """11.17 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("preact-resnet18-fast", image_size, at_least=8)
    return PreActResNet18Fast(channels, classes)
