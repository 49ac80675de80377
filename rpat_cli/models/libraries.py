"""Networks of other libraries, `torchvision:NAME` and `timm:NAME`: randomly initialized, or with
the library's trained weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.errors import CheckpointError, ConfigError, MissingExtraError, did_you_mean, unknown
from rpat_cli.models.base import ModelBuilder
from rpat_cli.models.layers import require_size
from rpat_cli.models.normalize import Classifier


def torchvision_builder(name: str) -> ModelBuilder:
    """The builder of a torchvision classification network. Raises `ConfigError` for an unknown
    name."""
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(_unknown("torchvision", name, names))
    return partial(_torchvision_network, name)


def timm_builder(name: str) -> ModelBuilder:
    """The builder of a timm network. Raises `MissingExtraError` without timm, `ConfigError` for an
    unknown name."""
    _find_timm(name)
    return partial(_timm_network, name)


def pretrained_torchvision(name: str, shape: tuple[int, int, int]) -> Classifier:
    """A torchvision network with its newest trained weights and their normalization, in eval mode;
    `shape` is the (C, H, W) of the images.

    The weights are downloaded unless torch's cache holds them. Raises `CheckpointError`, naming the
    file, if they cannot be downloaded, and `ConfigError` for an unknown name or images that the
    network does not take.
    """
    from torchvision import models

    torchvision_builder(name)  # raises for an unknown name
    label = f"torchvision:{name}"
    weights = models.get_model_weights(name).DEFAULT
    _require_channels(label, 3, shape[0])
    file = _torch_cache(weights.url)
    try:
        net: nn.Module = models.get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_unavailable(label, file, weights.url, error)) from error
    constants = weights.transforms()
    made_for = f"{constants.crop_size[0]} pixels a side"
    _probe(label, net, channels=shape[0], image_size=min(shape[1:]), made_for=made_for)
    return Classifier(net, constants.mean, constants.std).eval()


def pretrained_timm(name: str, shape: tuple[int, int, int]) -> Classifier:
    """The same from timm, whose weights come from the Hugging Face hub. Also raises
    `MissingExtraError` without timm."""
    timm = _find_timm(name)
    label, config = f"timm:{name}", _timm_config(timm, name)
    _require_channels(label, config.input_size[0], shape[0])
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        source = (
            f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else str(config.url)
        )
        raise CheckpointError(_unavailable(label, _timm_cache(config), source, error)) from error
    made_for = " x ".join(map(str, config.input_size[1:]))
    _probe(label, net, channels=shape[0], image_size=min(shape[1:]), made_for=made_for)
    return Classifier(net, config.mean, config.std).eval()


@dataclass(frozen=True)
class LibraryWeights:
    """Trained weights of a library: where they are once they are on this machine, how to read them,
    and their normalization."""

    file: Path
    load: Callable[[], dict[str, Tensor]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def torchvision_weights(name: str, tag: str = "") -> LibraryWeights:
    """The weights `tag` of a torchvision network, such as IMAGENET1K_V1; "" for the newest. Loading
    downloads them unless torch's cache has them.

    Raises `ConfigError` for unknown names; loading raises `CheckpointError`.
    """
    from torchvision import models

    torchvision_builder(name)  # raises for an unknown name
    known = models.get_model_weights(name)
    if tag and tag not in known.__members__:
        names = list(known.__members__)
        raise ConfigError(unknown(f"weights of torchvision:{name}", tag, names))
    weights = known[tag] if tag else known.DEFAULT
    file = _torch_cache(weights.url)
    constants = weights.transforms()

    def load() -> dict[str, Tensor]:
        try:
            return dict(weights.get_state_dict(progress=False, check_hash=True))
        except (OSError, RuntimeError) as error:
            label = f"torchvision:{name}"
            raise CheckpointError(_unavailable(label, file, weights.url, error)) from error

    return LibraryWeights(file, load, tuple(constants.mean), tuple(constants.std))


def timm_weights(name: str, tag: str = "") -> LibraryWeights:
    """The same of a timm network, whose names have their tag within (resnet18.a1_in1k): `tag` is
    "pretrained" or "". Also raises `MissingExtraError` without timm."""
    if tag not in ("", "pretrained"):
        raise ConfigError(f"timm:{name}@{tag}: write timm:{name}.{tag}@pretrained.")
    timm = _find_timm(name)
    label, config = f"timm:{name}", _timm_config(timm, name)

    def load() -> dict[str, Tensor]:
        try:
            return dict(timm.create_model(name, pretrained=True).state_dict())
        except (OSError, RuntimeError) as error:
            place = str(config.hf_hub_id or config.url)
            message = _unavailable(label, _timm_cache(config), place, error)
            raise CheckpointError(message) from error

    return LibraryWeights(_timm_cache(config), load, tuple(config.mean), tuple(config.std))


def preprocessing(name: str) -> dict[str, Any]:
    """The recipe keys of `data` with which image files become what the trained weights of
    `torchvision:NAME` or `timm:NAME` were measured on; empty where that is not known.

    Raises `ConfigError` for an unknown name, `MissingExtraError` without timm.
    """
    library, _, member = name.partition(":")
    if library == "timm":
        config = _find_timm(member).get_pretrained_cfg(member)
        if config is None or config.crop_mode != "center":
            return {}
        height, width = config.input_size[1:]
        resized, interpolation = math.floor(height / config.crop_pct), config.interpolation
    else:
        from torchvision import models

        torchvision_builder(member)  # raises for an unknown name
        preset = models.get_model_weights(member).DEFAULT.transforms()
        height = width = preset.crop_size[0]
        resized, interpolation = preset.resize_size[0], preset.interpolation.value
    size = height if height == width else [height, width]
    # Some networks take the whole image, and resize it to a little less than the crop.
    crop = min(1.0, height / resized)
    return {"image_size": size, "center_crop": crop, "interpolation": interpolation}


def class_names_of(name: str) -> tuple[str, ...]:
    """What the outputs of a trained network stand for; empty where its library does not say."""
    library, _, member = name.partition(":")
    if library != "torchvision":
        return ()
    from torchvision import models

    return tuple(models.get_model_weights(member).DEFAULT.meta["categories"])


def has_weights(name: str) -> bool:
    """Whether the trained weights of `torchvision:NAME` or `timm:NAME` are on this machine, so that
    using them downloads nothing. Raises as `preprocessing` does."""
    library, _, member = name.partition(":")
    if library == "timm":
        config = _find_timm(member).get_pretrained_cfg(member)
        return config is None or _timm_cache(config).exists()
    from torchvision import models

    torchvision_builder(member)  # raises for an unknown name
    return _torch_cache(models.get_model_weights(member).DEFAULT.url).is_file()


def _torch_cache(url: object) -> Path:
    """Where torch looks for the file of an address before it downloads it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / str(url).rsplit("/", 1)[-1]


def _timm_config(timm: ModuleType, name: str) -> Any:
    """What timm knows of the trained weights of a network. Raises `CheckpointError` if there are
    none."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url or config.file):
        raise CheckpointError(
            f"timm has no trained weights for {name!r}. Train it: rpat train --model timm:{name}"
        )
    return config


def _timm_cache(config: Any) -> Path:
    """Where timm looks for trained weights before it downloads them."""
    if config.hf_hub_id:
        cache = import_module("huggingface_hub.constants").HF_HUB_CACHE  # timm depends on it
        return Path(cache) / f"models--{config.hf_hub_id.replace('/', '--')}"
    return _torch_cache(config.url)


def _require_channels(label: str, wanted: int, given: int) -> None:
    if wanted != given:
        raise ConfigError(
            f"the trained model {label!r} takes images of {wanted} channels; these have {given}."
        )


def _unavailable(label: str, file: Path, source: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"the weights of {label!r} are not at {file}, and {source} could not be read "
        f"({reason[:200]}). Copy the file there from a machine that can download it, or try again "
        "online."
    )


def _find_timm(name: str) -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the model 'timm:{name}'", "timm") from error

    if not timm.is_model(name):
        raise ConfigError(_unknown("timm", name, timm.list_models()))
    module: ModuleType = timm
    return module


def _torchvision_network(name: str, channels: int, image_size: int, classes: int) -> nn.Module:
    from torchvision import models

    label = f"torchvision:{name}"
    smallest = max(models.get_model_weights(name).DEFAULT.meta["min_size"])
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        # Cuts images of any size into patches, whose size its name ends with.
        _require_multiple(label, image_size, patch=int(name.rsplit("_", 1)[1]))
        options["image_size"] = image_size
    else:
        require_size(label, image_size, at_least=smallest)
    if name in ("googlenet", "inception_v3"):
        # With auxiliary heads they would return a tuple instead of logits.
        options |= {"aux_logits": False, "init_weights": True}
    net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    _set_channels(net, channels)
    _probe(label, net, channels, image_size, made_for=f"{smallest} x {smallest}")
    return net


def _timm_network(name: str, channels: int, image_size: int, classes: int) -> nn.Module:
    import timm

    label = f"timm:{name}"
    config = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {}
    made_for = "the sizes in its documentation"
    if config is not None:
        made_for = " x ".join(map(str, config.input_size[1:]))
        if config.fixed_input_size:  # vision transformers: the size is part of the architecture
            options["img_size"] = image_size
    try:
        net = timm.create_model(
            name, pretrained=False, in_chans=channels, num_classes=classes, **options
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(_unfit(label, image_size, made_for)) from error
    _probe(label, net, channels, image_size, made_for)
    return net


def _probe(label: str, net: nn.Module, channels: int, image_size: int, made_for: str) -> None:
    """Send one blank image through `net`. Raises `ConfigError` here rather than some error in the
    middle of the first epoch. Leaves the mode as it was."""
    mode = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(_unfit(label, image_size, made_for)) from error
    net.train(mode)


def _require_multiple(label: str, image_size: int, patch: int) -> None:
    if image_size % patch:
        nearest = patch * max(1, round(image_size / patch))
        raise ConfigError(
            f"the model {label!r} takes images whose sides are a multiple of {patch} pixels, such "
            f"as {nearest}; these have {image_size}."
        )


def _unfit(label: str, image_size: int, made_for: str) -> str:
    return (
        f"the model {label!r} does not take images of {image_size} x {image_size} pixels; "
        f"it is made for {made_for}. Choose another model, or resize the images."
    )


def _set_channels(net: nn.Module, channels: int) -> None:
    """Replace the first convolution if it takes another number of channels than the images have."""
    convolutions = [item for item in net.named_modules() if isinstance(item[1], nn.Conv2d)]
    name, first = convolutions[0]
    assert isinstance(first, nn.Conv2d)
    if first.in_channels == channels:
        return
    replacement = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    net.set_submodule(name, replacement)


def _unknown(library: str, given: str, names: list[str]) -> str:
    return f"{library} has no classification model {given!r}. {did_you_mean(given, names)}".rstrip()
