"""From a name to a classifier."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from rpat_cli.errors import ConfigError, UserCodeError
from rpat_cli.models import LIBRARIES, MODELS, in_library
from rpat_cli.models.normalize import Classifier
from rpat_cli.user_code import calling, where_defined

__all__ = ["Classifier", "ModelBuilder", "build_model", "build_network"]


class ModelBuilder(Protocol):
    """Makes a randomly initialized network from (B, channels, H, W) to logits (B, classes).

    `image_size` is the shorter side in pixels. The network is given normalized images: `Classifier`
    normalizes. Raises `ConfigError` for images that the network cannot take.
    """

    def __call__(self, channels: int, image_size: int, classes: int) -> nn.Module: ...


def build_model(
    name: str,
    *,
    shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """A randomly initialized classifier for images of `shape` (C, H, W), with pixels in [0, 1].

    `name` is one of `MODELS`, or `torchvision:NAME`, or `timm:NAME`. Raises `ConfigError` for an
    unknown name, for images that the network cannot take, and for `mean` or `std` of another length
    than C; `MissingExtraError` for `timm:` without timm.
    """
    channels = shape[0]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"{key} needs one value per channel: {channels}; given {len(values)}: "
                f"{list(values)}."
            )
    return Classifier(build_network(name, shape, classes), mean, std)


def build_network(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network behind a `Classifier`, without normalization. Raises as `build_model` does."""
    channels, height, width = shape
    if classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes; given {classes}.")
    builder = _find_builder(name)
    with calling(builder, f"{name}(channels, image_size, classes)"):
        network = builder(channels, min(height, width), classes)
    if not isinstance(network, nn.Module):
        raise UserCodeError(
            f"{where_defined(builder)}: the model {name!r} must be a function (channels, "
            f"image_size, classes) that returns a torch.nn.Module; it returned "
            f"{type(network).__name__}."
        )
    return network


def _find_builder(name: str) -> ModelBuilder:
    if in_library(name):
        library, _, member = name.partition(":")
        return LIBRARIES[library](member)
    return MODELS[name]
