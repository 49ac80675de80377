"""Networks by name. Reading this table does not import torch; a network's module is imported when it is first built."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rpat_cli.registry import Registry

if TYPE_CHECKING:
    from rpat_cli.models.base import ModelBuilder

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
        "torchvision": "rpat_cli.models.zoo:torchvision_builder",
        "timm": "rpat_cli.models.zoo:timm_builder",
    },
)
"""Other libraries' networks, named `torchvision:NAME` and `timm:NAME`: from NAME to its builder."""


def model_names() -> list[str]:
    """What may be given as a model's name, for help pages and error messages."""
    return [*MODELS, *(f"{zoo}:NAME" for zoo in ZOOS)]


def is_model_name(name: str) -> bool:
    """Whether a name is known, or belongs to a library that is asked for its names only when the model is built."""
    zoo, _, member = name.partition(":")
    return name in MODELS or (zoo in ZOOS and member != "")
