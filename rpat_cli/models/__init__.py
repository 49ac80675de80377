"""Networks by name. Reading this table does not import torch; a network's module is imported when
it is first built."""

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

ZOOS: "Registry[Callable[[str], ModelBuilder]]" = Registry(
    "model library",
    {
        "torchvision": "rpat_cli.models.libraries:torchvision_builder",
        "timm": "rpat_cli.models.libraries:timm_builder",
    },
)
"""Other libraries' networks, named `torchvision:NAME` and `timm:NAME`: from NAME to its builder."""

PRETRAINED: "Registry[Callable[[str, tuple[int, int, int]], Classifier]]" = Registry(
    "model library",
    {
        "torchvision": "rpat_cli.models.libraries:pretrained_torchvision",
        "timm": "rpat_cli.models.libraries:pretrained_timm",
    },
)
"""The same networks with the weights that the library's authors trained: from NAME and the images'
(C, H, W)."""


def model_names() -> list[str]:
    """What may be given as a model's name, for help pages and error messages."""
    return [*MODELS, *(f"{zoo}:NAME" for zoo in ZOOS)]


def is_model_name(name: str) -> bool:
    """Whether a name is known, or belongs to a library that is asked for its names only when the
    model is built."""
    return name in MODELS or in_library(name)


def in_library(name: str) -> bool:
    """Whether a name is of the form `torchvision:NAME` or `timm:NAME`."""
    zoo, _, member = name.partition(":")
    return zoo in ZOOS and member != ""
