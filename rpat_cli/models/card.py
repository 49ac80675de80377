"""The compressed networks of "A Winning Hand" (Diffenderfer et al. 2021, arXiv 2106.09129)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from rpat_cli.models.layers import conv, global_average, require_size, stages


def _block(width_in: int, width_out: int, stride: int) -> nn.Module:
    downsample = None
    if stride != 1 or width_in != width_out:
        downsample = nn.Sequential(conv(width_in, width_out, 1, stride), nn.BatchNorm2d(width_out))
    block: nn.Module = BasicBlock(width_in, width_out, stride, downsample)
    return block


class CardResNet18(nn.Module):
    """ResNet-18 under torchvision's names, twice as wide, for small images."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 128, 3)
        self.bn1 = nn.BatchNorm2d(128)
        widths = (128, 256, 512, 1024)
        made = stages(_block, 128, widths, counts=(2, 2, 2, 2))
        self.layer1, self.layer2, self.layer3, self.layer4 = made
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        logits: Tensor = self.fc(global_average(out))
        return logits


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, affine=False)


class CardPreActBlock(nn.Module):
    """Every shortcut, also an identity, starts after the first ReLU; BatchNorm scales and shifts
    nothing."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(width_in, width_out, 3, stride)
        self.bn1 = _norm(width_in)
        self.conv2 = conv(width_out, width_out, 3)
        self.bn2 = _norm(width_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(conv(width_in, width_out, 1, stride), _norm(width_out))

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(first))))
        total: Tensor = out + self.shortcut(first)
        return total


class CardPreActResNet18(nn.Module):
    """Made for weights of two values each (the binary networks); the head is a convolution."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, 64, 3)
        widths = (64, 192, 384, 768)
        self.bn1 = _norm(widths[-1])
        made = stages(CardPreActBlock, 64, widths, counts=(2, 2, 2, 2))
        self.layer1, self.layer2, self.layer3, self.layer4 = made
        self.fc = conv(widths[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = layer(out)
        average = global_average(F.relu(self.bn1(out)))
        logits: Tensor = self.fc(average[..., None, None])
        return logits.flatten(1)


def card_resnet18(channels: int, image_size: int, classes: int) -> nn.Module:
    """44.7 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("card-resnet-18-w128", image_size, at_least=8)
    return CardResNet18(channels, classes)


def card_preact_resnet18(channels: int, image_size: int, classes: int) -> nn.Module:
    """24.9 M parameters. Raises `ConfigError` for images under 8 x 8."""
    require_size("card-preact-18-w2-binary", image_size, at_least=8)
    return CardPreActResNet18(channels, classes)
