"""The pieces that several networks share."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rpat_cli.errors import ConfigError

BlockBuilder = Callable[[int, int, int], nn.Module]
"""(width in, width out, stride) -> block; stride 2 halves the image."""

RESNET_WIDTHS = (64, 128, 256, 512)


def named(name: str, part: nn.Module) -> nn.Sequential:
    """`part` alone, one level deeper, as it is called in published files."""
    return nn.Sequential(OrderedDict({name: part}))


def conv(width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image size at stride 1; without bias, since BatchNorm next to it
    has one."""
    return nn.Conv2d(
        width_in, width_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


def stem_stride(image_size: int) -> int:
    """The first convolution's stride in networks published for 64 x 64 pixels: from that size on it
    halves the image."""
    return 2 if image_size >= 64 else 1


def stage(
    block: BlockBuilder, width_in: int, width_out: int, count: int, stride: int
) -> nn.Sequential:
    """`count` blocks in a row; only the first one changes width and image size."""
    first = block(width_in, width_out, stride)
    return nn.Sequential(first, *(block(width_out, width_out, 1) for _ in range(count - 1)))


def stages(
    block: BlockBuilder, width_in: int, widths: Sequence[int], counts: Sequence[int]
) -> list[nn.Sequential]:
    """`counts[i]` blocks with an output of `widths[i]`, for each i; all stages but the first halve
    the image."""
    made = []
    for i, (width, count) in enumerate(zip(widths, counts, strict=True)):
        made.append(stage(block, width_in, width, count, stride=1 if i == 0 else 2))
        width_in = width
    return made


def resnet18_stages(block: BlockBuilder) -> list[nn.Sequential]:
    """The four stages of two blocks each that make a ResNet an "18"."""
    return stages(block, 64, RESNET_WIDTHS, counts=(2, 2, 2, 2))


def global_average(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), for any image size; a plain mean is deterministic on every device."""
    return x.mean(dim=(2, 3))


def flatten(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C · H · W), the gradient of channels_last images in that format, too.

    torch returns NCHW, with which the backward pass of a ReLU before this takes seven times as long
    on a CPU: 5 % of a step of small-cnn with 128 images. The values are the same.
    """

    def as_images(gradient: Tensor) -> Tensor:
        return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    # By permuting: under torch.func.vmap tensors cannot be asked for a memory format.
    is_channels_last = x.permute(0, 2, 3, 1).is_contiguous()
    on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if x.requires_grad and is_channels_last and on_cpu:
        x.register_hook(as_images)  # type: ignore[no-untyped-call]
    return x.flatten(1)


def require_size(name: str, image_size: int, at_least: int) -> None:
    """Raise `ConfigError` for images so small that strides and poolings would leave no pixel."""
    if image_size < at_least:
        raise ConfigError(
            f"the model {name!r} takes images of at least {at_least} x {at_least} pixels; these "
            f"have {image_size}. Choose another model, or enlarge the images."
        )
