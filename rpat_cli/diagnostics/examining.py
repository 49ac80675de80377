"""What every measurement on a model's images begins with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.data.reading import AnyImages
from rpat_cli.errors import DataError


@contextmanager
def examining(
    model: nn.Module, x: AnyImages, device: torch.device | None, seed: int
) -> Iterator[tuple[nn.Module, torch.device]]:
    """The model, frozen and in float32, and the device (default: that of the images), with random
    numbers of its own inside. The model and all generators stay as they were.

    Raises `DataError` without images.
    """
    if not len(x):
        raise DataError("there are no images to examine.")
    device = device or x.device
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        yield model, device
