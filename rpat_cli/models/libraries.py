"""Networks of other libraries, under `torchvision:NAME` and `timm:NAME`: untrained, or with their
authors' weights."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rpat_cli.errors import CheckpointError, ConfigError, MissingExtraError, did_you_mean
from rpat_cli.models.base import ModelBuilder
from rpat_cli.models.layers import require_size
from rpat_cli.models.normalize import Classifier


def torchvision_builder(name: str) -> ModelBuilder:
    """Builder of a torchvision classification network. Raises `ConfigError` for a name that
    torchvision lacks."""
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(_unknown("torchvision", name, names))
    return partial(_torchvision_network, name)


def timm_builder(name: str) -> ModelBuilder:
    """Builder of a timm network. Raises `MissingExtraError` without timm, `ConfigError` for a name
    that it lacks."""
    _find_timm(name)
    return partial(_timm_network, name)


def pretrained_torchvision(name: str, shape: tuple[int, int, int]) -> Classifier:
    """A torchvision network with its newest trained weights and normalisation, in eval mode, for
    images (C, H, W).

    The weights are downloaded unless torch's cache holds them. Raises `CheckpointError`, naming the
    file, where they cannot be had, and `ConfigError` for an unknown name or images that the network
    does not take.
    """
    from torchvision import models

    torchvision_builder(name)  # raises for a name that there is none of
    label = f"torchvision:{name}"
    weights = models.get_model_weights(name).DEFAULT
    _require_channels(label, 3, shape[0])
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        net: nn.Module = models.get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_not_had(label, file, weights.url, error)) from error
    constants = weights.transforms()
    return _ready(
        label,
        net,
        constants.mean,
        constants.std,
        shape,
        made_for=f"{constants.crop_size[0]} pixels a side",
    )


def pretrained_timm(name: str, shape: tuple[int, int, int]) -> Classifier:
    """The same from timm. Raises `MissingExtraError` without it; its weights come from the Hugging
    Face hub."""
    timm = _find_timm(name)
    label, config = f"timm:{name}", timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url or config.file):
        raise CheckpointError(
            f"timm has no trained weights for {name!r}. Train it: rpat train --model {label}"
        )
    _require_channels(label, config.input_size[0], shape[0])
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        source = (
            f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else str(config.url)
        )
        raise CheckpointError(_not_had(label, _timm_cache(config), source, error)) from error
    made_for = " x ".join(map(str, config.input_size[1:]))
    return _ready(label, net, config.mean, config.std, shape, made_for)


def _timm_cache(config: Any) -> Path:
    """Where timm looks for trained weights before it asks the net."""
    if config.hf_hub_id:
        cache = import_module("huggingface_hub.constants").HF_HUB_CACHE  # timm brings it along
        return Path(cache) / f"models--{config.hf_hub_id.replace('/', '--')}"
    return Path(torch.hub.get_dir()) / "checkpoints" / str(config.url).rsplit("/", 1)[-1]


def _ready(
    label: str,
    net: nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    shape: tuple[int, int, int],
    made_for: str,
) -> Classifier:
    return Classifier(_probed(label, net, shape[0], min(shape[1:]), made_for), mean, std).eval()


def _require_channels(label: str, wanted: int, given: int) -> None:
    if wanted != given:
        raise ConfigError(
            f"the trained model {label!r} takes images of {wanted} channels; these have {given}."
        )


def _not_had(label: str, file: Path, source: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"the weights of {label!r} are not at {file}, and {source} could not be read "
        f"({reason[:200]}). "
        "Copy the file there from a machine that can download it, or try again with a connection."
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
    if name.startswith(
        "vit_"
    ):  # cuts images of any size into patches; its name ends with their size
        _require_multiple(label, image_size, patch=int(name.rsplit("_", 1)[1]))
        options["image_size"] = image_size
    else:
        require_size(label, image_size, at_least=smallest)
    if name in (
        "googlenet",
        "inception_v3",
    ):  # their auxiliary heads would return a tuple instead of logits
        options |= {"aux_logits": False, "init_weights": True}
    net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    _set_channels(net, channels)
    return _probed(label, net, channels, image_size, made_for=f"{smallest} x {smallest}")


def _timm_network(name: str, channels: int, image_size: int, classes: int) -> nn.Module:
    import timm

    label = f"timm:{name}"
    config = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = (
        {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    )
    made_for = (
        "the sizes its documentation names"
        if config is None
        else " x ".join(map(str, config.input_size[1:]))
    )
    try:
        net = timm.create_model(
            name, pretrained=False, in_chans=channels, num_classes=classes, **options
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(_unfit(label, image_size, made_for)) from error
    return _probed(label, net, channels, image_size, made_for)


def _probed(label: str, net: nn.Module, channels: int, image_size: int, made_for: str) -> nn.Module:
    """Send one blank image through: better an error here than one in the middle of the first
    epoch."""
    mode = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(_unfit(label, image_size, made_for)) from error
    return net.train(mode)


def _require_multiple(label: str, image_size: int, patch: int) -> None:
    if image_size % patch:
        allowed = (
            f"a multiple of {patch} pixels, such as {patch * max(1, round(image_size / patch))}"
        )
        raise ConfigError(
            f"the model {label!r} takes images with sides of {allowed}; these have {image_size}."
        )


def _unfit(label: str, image_size: int, made_for: str) -> str:
    return (
        f"the model {label!r} does not take images of {image_size} x {image_size} pixels; "
        f"it is made for {made_for}. Choose another model, or resize the images."
    )


def _set_channels(net: nn.Module, channels: int) -> None:
    """Replace the first convolution if it takes another number of channels than the images have."""
    name, first = next(
        (name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)
    )
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
    near = did_you_mean(given, names)
    return " ".join(
        part for part in (f"{library} has no classification model {given!r}.", near) if part
    )
