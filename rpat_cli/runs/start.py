"""The weights that a new run begins with, and what follows from them for its recipe."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rpat_cli.data.normalization import normalization
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.loading.architecture import image_shape
from rpat_cli.loading.hub import is_here
from rpat_cli.loading.start import Start, read_start, start_here
from rpat_cli.loading.start_name import frozen_in
from rpat_cli.models import is_remote
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.inputs import Inputs


def begun_with(recipe: Recipe) -> tuple[Recipe, Start | None]:
    """The start that the recipe names, if it does, and the recipe with the normalization that those
    weights were trained with, unless it names another. Raises what `read_start` does."""
    if recipe.init is None:
        return recipe, None
    start = read_start(recipe.init, Path(recipe.data.root))
    constants = start.mean, start.std
    channels = image_shape(recipe.data)[0]
    usual = normalization(recipe.data.normalize_as or recipe.data.name, channels)
    if recipe.data.normalize_as or None in constants or _same(constants, usual):
        return recipe, start
    if any(len(values or ()) not in (1, channels) for values in constants):
        return recipe, start  # of images of other channels, as its first layer is
    spelled = "/".join(",".join(map(repr, values or ())) for values in constants)
    data = recipe.data.model_copy(update={"normalize_as": spelled})
    return recipe.model_copy(update={"data": data}), start


def check_start(recipe: Recipe, network: nn.Module) -> None:
    """Raise what a training that begins as the recipe says would, as far as that can be said
    without a download."""
    if recipe.init is None:
        return
    start = start_here(recipe.init, Path(recipe.data.root))
    if start is not None:
        start.fitted(network, recipe.model)


def check_downloads(recipe: Recipe) -> None:
    """Raise `ConfigError` for networks that the method learns from and that a training would
    download: the cost depends on them. Of a start it does not."""
    problems = []
    for name, source in frozen_in(recipe).items():
        if is_remote(source) and not is_here(source):
            message = (
                f"{source} is not on this machine, and --dry-run downloads nothing: without it the "
                "cost cannot be measured."
            )
            problems.append(Problem(f"method.{name}", message, hint="The training downloads it."))
    if problems:
        raise ConfigError(*problems)


def _same(a: object, b: object) -> bool:
    """Whether two normalizations are the same in float32, which they are used in."""
    try:
        return torch.equal(torch.tensor(a), torch.tensor(b))
    except (ValueError, TypeError):  # of different lengths
        return False


def with_fitted_start(inputs: Inputs) -> Inputs:
    """With what of the start the network takes. Raises `CheckpointError` if that is too little."""
    if inputs.start is None:
        return inputs
    network = inputs.architecture.build().net
    return replace(inputs, start=inputs.start.fitted(network, inputs.recipe.model))
