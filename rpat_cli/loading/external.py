"""Models without a checkpoint: a library's trained ones, what a function in a Python file returns,
and a model that exists already in Python."""

import inspect
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem, RpatError
from rpat_cli.evaluation.verify import check_precision, checked_logits
from rpat_cli.loading.architecture import Architecture, image_shape
from rpat_cli.loading.in_pairs import REMARK, InPairs, companion
from rpat_cli.loading.model_file import ModelFile
from rpat_cli.loading.published import names_data
from rpat_cli.loading.saved_model import EXTERNAL, SavedModel
from rpat_cli.models import PRETRAINED_MODELS, in_library
from rpat_cli.models.libraries import class_names_of, has_weights, preprocessing
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import trust, unasked_download, untrusted
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.user_code import place_of


def load_external(name: str, given: Sequence[Layer]) -> SavedModel | None:
    """The model of `torchvision:NAME`, `timm:NAME` or `FILE.py:FUNCTION`, in eval mode; None for
    any other name.

    `given` are layers of a recipe: they name the data set, whose images the model must take. Raises
    `ConfigError` without a data set, for a file or a download that nobody has answered for, and for
    a file or function that fails, `CheckpointError` for weights that cannot be downloaded, and
    `RpatError` for a model that does not map images to logits.
    """
    file = ModelFile.parse(name)
    model: nn.Module
    if in_library(name):
        if not trust().allows_download(name) and not has_weights(name):
            raise ConfigError(unasked_download(name))
        recipe = _recipe(name, _with_preprocessing(name, given))
        library, _, member = name.partition(":")
        # torch announces downloads on stdout, which is for results alone.
        with redirect_stdout(sys.stderr):
            model = PRETRAINED_MODELS[library](member, image_shape(recipe.data))
        return replace(_saved(model, name, recipe), class_names=class_names_of(name))
    if file is None:
        return None
    if not trust().allows(file.path):
        raise ConfigError(untrusted(file.path.resolve(), name))
    text, recipe = file.text, _recipe(name, given)
    # Random weights are the same every time, so that an interrupted evaluation can go on.
    with own_randomness(torch.device("cpu"), recipe.seed):
        model = file.build().eval()
    return _saved(model, f"{file.path.name}:{file.function}", recipe, file.path, text)


def _with_preprocessing(name: str, given: Sequence[Layer]) -> Sequence[Layer]:
    """The layers over those of the library's own preprocessing, if the data set is a folder of
    image files, which do not come in the size that the model takes."""
    if not names_data(given) or DATASETS[resolve(given).data.name].shape is not None:
        return given
    return [Layer(f"the preprocessing of {name}", {"data": preprocessing(name)}), *given]


def module_at_hand(model: nn.Module, given: Sequence[Layer]) -> SavedModel:
    """A model that exists already, in the mode that it is in. Raises as `load_external` does."""
    name = type(model).__name__
    recipe = _recipe(name, given)
    source = ""
    with suppress(OSError, TypeError):  # a class typed into an interpreter has none
        source = inspect.getsource(type(model))
    return replace(_saved(model, name, recipe, source=source), at_hand=True)


def _recipe(name: str, given: Sequence[Layer]) -> Recipe:
    """The given layers over the defaults: a model that was trained elsewhere has no recipe. Raises
    `ConfigError` if they name no data set, or a network."""
    problems = []
    if not names_data(given):
        problems.append(
            Problem("", "does not record which images it takes. Name a data set with --data.", name)
        )
    if any("model" in layer.values for layer in given):
        problems.append(Problem("", "is a whole model: remove --model.", name))
    if problems:
        raise ConfigError(*problems)
    return resolve(given)


def _saved(
    model: nn.Module, name: str, recipe: Recipe, file: Path | None = None, source: str = ""
) -> SavedModel:
    """`name` is what records call the model; the folder of its results is named after it."""
    shape = image_shape(recipe.data)
    constants: tuple[tuple[float, ...], ...] = ((), ())
    if isinstance(model, Classifier):
        constants = model.constants
    remarks: tuple[str, ...] = ()
    try:
        classes = _classes(model, name, shape)
    except RpatError:
        in_pairs = InPairs(model)
        with suppress(RpatError):
            classes = _classes(in_pairs, name, shape)
            model, remarks = in_pairs, (REMARK,)
        if not remarks:
            raise
    architecture = Architecture(name, shape, classes, *constants)
    readable = re.sub(r"[^\w+-]+", "-", name.replace(".py:", "-"))
    return SavedModel(
        model,
        architecture,
        file or Path(readable),
        0,
        recipe,
        RunFolder(EXTERNAL / readable),
        source,
        remarks=remarks,
    )


def _classes(model: nn.Module, name: str, shape: tuple[int, int, int]) -> int:
    """How many logits the model returns for an image. Raises `RpatError` if it fails."""
    parameter = next(model.parameters(), None)
    x = companion(torch.empty(1, *shape)).flip(-1)
    try:
        check_precision(model)
        with frozen(model) as model:
            return checked_logits(model, x if parameter is None else x.to(parameter.device)).shape[
                1
            ]
    except RpatError as error:
        raise RpatError(f"{name}: {error}") from None
    except Exception as error:
        place = place_of(error)
        where = f" in {place.file}, line {place.line}" if place else ""
        raise RpatError(
            f"{name}: the model fails on an image of shape {shape}: {type(error).__name__}: "
            f"{error}{where}. Choose the data set that it was made for with --data; "
            "--set data.image_size=224 resizes an imagefolder."
        ) from error
