"""Networks by name. Importing this package does not import torch: a network's module is imported
when it is first built."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rpat_cli.models.families import FAMILIES
from rpat_cli.models.hub_name import HUB
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
        "resnet50": "rpat_cli.models.resnet:resnet50",
        "preact-resnet18-fast": "rpat_cli.models.preact_resnet:preact_resnet18_fast",
        "preact-bottleneck-50": "rpat_cli.models.bottlenecks:preact_bottleneck50",
        "resnext-29-32x4": "rpat_cli.models.bottlenecks:resnext29",
        "resnest-152": "rpat_cli.models.resnest:resnest152",
        "card-resnet-18-w128": "rpat_cli.models.card:card_resnet18",
        "card-preact-18-w2-binary": "rpat_cli.models.card:card_preact_resnet18",
        "wrn-34-r": "rpat_cli.models.wide_resnet:wrn_34_r",
        "wrn-a4-silu": "rpat_cli.models.wide_resnet:wrn_a4_silu",
        "ra-wrn-70-16": "rpat_cli.models.deepmind:ra_wrn_70_16",
        "meansparse-ra-wrn-70-16": "rpat_cli.models.deepmind:meansparse_ra_wrn_70_16",
        "ra-wrn-101-2": "rpat_cli.models.bottlenecks:ra_wrn_101_2",
        "bit-r152x2-gn-128px": "rpat_cli.models.bit:bit_r152x2",
    },
    families=FAMILIES,
    aliases={  # what RobustBench's files are sorted by
        "resnet-18": "resnet18",
        "resnet-50": "resnet50",
        "preact-18": "preact-resnet18-fast",
        "preact-18-bn": "preact-resnet18",
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
    return [*MODELS.forms(), *_library_forms()]


def list_models() -> dict[str, str]:
    """All names, and where they are many or need an explanation, one."""
    found = dict.fromkeys(MODELS, "")
    found |= {each.form: f"such as {', '.join(each.examples)}" for each in MODELS.families}
    return found | dict.fromkeys(_library_forms(), "any classification network of that library")


def model_examples() -> list[str]:
    """Names for a shell to complete."""
    return [*MODELS.examples(), *_library_forms()]


def _library_forms() -> list[str]:
    return [f"{library}:NAME" for library in LIBRARIES]


def is_model_name(name: str) -> bool:
    """Whether a name is in `MODELS` or belongs to a library. Whether the library knows it turns out
    only when the model is built: asking would import torch."""
    return name in MODELS or in_library(name)


def in_library(name: str) -> bool:
    """Whether a name is of the form `torchvision:NAME` or `timm:NAME`."""
    library, _, member = name.partition(":")
    return library in LIBRARIES and member != ""


def is_remote(name: str) -> bool:
    """Whether a name's weights are not a file of the user's, and may have to be downloaded: those
    of a library, or of the hub (`hf:USER/NAME`)."""
    return in_library(name) or name.startswith(HUB)
