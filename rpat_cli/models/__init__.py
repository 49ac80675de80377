"""Networks by name. Importing this package does not import torch: a network's module is imported
when it is first built."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rpat_cli.registry import Registry

if TYPE_CHECKING:
    from rpat_cli.models.base import ModelBuilder
    from rpat_cli.models.normalize import Classifier

MODELS: "Registry[ModelBuilder]" = Registry(
    "model",
    {
        "small-cnn": "rpat_cli.models.small_cnn:small_cnn",
        "resnet18": "rpat_cli.models.resnet:resnet18",
        "resnet18-bottleneck": "rpat_cli.models.resnet:resnet18_bottleneck",
        "preact-resnet18": "rpat_cli.models.preact_resnet:preact_resnet18",
        "preact-resnet18-stem": "rpat_cli.models.preact_resnet:preact_resnet18_stem",
        "wrn-28-10": "rpat_cli.models.wide_resnet:wrn_28_10",
        "wrn-34-10": "rpat_cli.models.wide_resnet:wrn_34_10",
        "vgg16": "rpat_cli.models.vgg:vgg16",
        "mobilenet-v2": "rpat_cli.models.mobilenet:mobilenet_v2",
    },
)

LIBRARIES: "Registry[Callable[[str], ModelBuilder]]" = Registry(
    "model library",
    {
        "torchvision": "rpat_cli.models.libraries:torchvision_builder",
        "timm": "rpat_cli.models.libraries:timm_builder",
    },
)
"""Networks of other libraries, `torchvision:NAME` and `timm:NAME`: from NAME to a builder."""

PRETRAINED_MODELS: "Registry[Callable[[str, tuple[int, int, int]], Classifier]]" = Registry(
    "model library",
    {
        "torchvision": "rpat_cli.models.libraries:pretrained_torchvision",
        "timm": "rpat_cli.models.libraries:pretrained_timm",
    },
)
"""The same networks with the library's trained weights: from NAME and the images' (C, H, W) to a
classifier."""


def model_names() -> list[str]:
    """What a recipe takes as a model's name, for help pages and error messages."""
    return [*MODELS, *(f"{library}:NAME" for library in LIBRARIES)]


def is_model_name(name: str) -> bool:
    """Whether a name is in `MODELS` or belongs to a library. Whether the library knows it turns out
    only when the model is built: asking would import torch."""
    return name in MODELS or in_library(name)


def in_library(name: str) -> bool:
    """Whether a name is of the form `torchvision:NAME` or `timm:NAME`."""
    library, _, member = name.partition(":")
    return library in LIBRARIES and member != ""
