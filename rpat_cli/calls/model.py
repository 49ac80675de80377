"""`rpat.load_model`, and the model that it returns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.calls.options import PathLike, layers_from, several
from rpat_cli.cli.eval_options import RECIPE_KEYS
from rpat_cli.data.images import decode, shaped
from rpat_cli.errors import DataError
from rpat_cli.loading.load import load_model as load
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.layers import Layer, code_named_in
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import code_of_target, trusting
from rpat_cli.runs.build import build_threat
from rpat_cli.runs.caller import as_target, called, named
from rpat_cli.runs.predict import form_for

CALL = "load_model"


class LoadedModel(nn.Module):
    """A trained classifier in eval mode: images (B, C, H, W) in [0, 1] to logits (B, classes).

    Normalization is part of it. `model` is the network itself, `saved` all that is known of its
    origin.
    """

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self.saved = saved
        self.model = saved.model
        self.train(self.model.training)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the outputs, in their order; empty where they are not known."""
        return self.saved.class_names

    @property
    def classes(self) -> int:
        return self.saved.architecture.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it takes."""
        return self.saved.architecture.shape

    @property
    def recipe(self) -> Recipe:
        return self.saved.recipe

    @property
    def threat(self) -> Threat:
        """That of the training."""
        return build_threat(self.saved.recipe)

    @property
    def file(self) -> Path:
        return self.saved.file

    @property
    def epoch(self) -> int:
        """After which it was saved, from 1; 0: unknown."""
        return self.saved.epoch

    def preprocess(self, image: "PathLike | Image.Image | np.ndarray[Any, Any] | Tensor") -> Tensor:
        """An image as the model takes it: (C, H, W) float32 in [0, 1], of the size that it was
        trained on, resized and cropped as in its evaluation.

        `image` is a file, an image of Pillow, an array (H, W) or (H, W, C) of bytes, or a tensor
        (C, H, W) of bytes or of floats in [0, 1], which must have the model's size. Can be the
        `transform` of a `Dataset`. Raises `DataError` for anything else.
        """
        if isinstance(image, Tensor):
            pixels = image
        elif isinstance(image, Image.Image | np.ndarray):
            try:  # Pillow knows no images of floats in many shapes
                whole = Image.fromarray(image.squeeze()) if isinstance(image, np.ndarray) else image
                pixels = shaped(whole, form_for(self.saved))
            except (TypeError, ValueError) as error:
                raise DataError(f"cannot read this image: {error}.") from error
        else:
            pixels = decode(Path(image), form_for(self.saved))
        x = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        if x.shape != self.image_shape:
            raise DataError(f"the model takes images {self.image_shape}, given {tuple(x.shape)}.")
        if not (x.min() >= 0 and x.max() <= 1):
            raise DataError(
                "pixels must be in [0, 1]; divide bytes by 255, and leave out Normalize."
            )
        return x

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The most likely class (B,) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self(x)
        return logits.argmax(dim=1)

    def extra_repr(self) -> str:
        names = f", {', '.join(self.class_names[:10])}" if self.class_names else ""
        return f"{self.file}, images {self.image_shape}, {self.classes} classes{names}"


def load_model(
    target: "PathLike",
    checkpoint: str = "best",
    *,
    data: str | None = None,
    model: str | None = None,
    normalize: str | None = None,
    data_root: PathLike | None = None,
    set: Mapping[str, Any] | None = None,
    plugin: "PathLike | Sequence[PathLike] | None" = None,
    trust: bool = False,
) -> LoadedModel:
    """The trained model of a run, a checkpoint file, `torchvision:NAME`, `timm:NAME`,
    `hf:USER/NAME` or `FILE.py:FUNCTION`, in eval mode on the CPU.

    For a file that other code has written, name its data set, and its network if it cannot be
    recognized by its weights: `load_model("last.model", data="cifar10",
    model="resnet18-bottleneck")`; `normalize` says how it normalizes ("none", "cifar10",
    "imagenet", "MEAN/STD"). `plugin` and `trust` are as in `rpat.train`. Raises `RpatError`s.
    """
    given = {"data": data, "model": model, "normalize": normalize, "data_root": data_root}
    return LoadedModel(saved_model(CALL, target, checkpoint, given, set, plugin, trust=trust))


def saved_model(
    call: str,
    target: PathLike,
    checkpoint: str,
    given: Mapping[str, Any],
    assigned: Mapping[str, Any] | None,
    plugin: "PathLike | Sequence[PathLike] | None",
    *,
    trust: bool,
) -> SavedModel:
    """What `rpat.load_model` and others read; `given` are options of `rpat eval` by their names."""
    keys = {name: RECIPE_KEYS[f"--{name.replace('_', '-')}"] for name in given}
    layers = layers_from(given, keys, assigned, call)
    if plugin is not None:
        named_files = {"plugins": [str(file) for file in several(plugin)]}
        layers.append(Layer(f"{call}(plugin=...)", named_files, by_user=True))
    return read_model(call, target, checkpoint, layers, trust=trust)


def read_model(
    call: str, target: Any, checkpoint: str, layers: Sequence[Layer], *, trust: bool
) -> SavedModel:
    """What every `load_model` reads; the caller answers for the code that they name."""
    files = [*code_named_in(layers), *code_of_target(target)]
    with called(call), trusting(everything=trust, files=files):
        return load(named(target, f"{call}()"), checkpoint, layers)


def opened_target(
    given: Any, call: str, *, names_data: bool
) -> tuple[Path | nn.Module | None, list[Layer]]:
    """What is evaluated, and what is known of it that the caller need not say again: of a
    `LoadedModel`, the network as it is in memory, with threat and data (unless the call
    `names_data`) of its recipe."""
    if not isinstance(given, LoadedModel):
        return as_target(given, call), []
    recipe = given.recipe.model_dump(mode="json")
    values = {"threat": recipe["threat"], "seed": recipe["seed"]}
    if not names_data:  # how it normalizes is part of the network
        values["data"] = {k: v for k, v in recipe["data"].items() if k != "normalize_as"}
    return given.model, [Layer("the model's recipe", values)]
