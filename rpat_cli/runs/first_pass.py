"""A plugin's network is tried before it is trained: in both modes, on a batch as small as the
training's smallest."""

import torch
from torch import Tensor, nn

from rpat_cli.attacks.side_effects import own_randomness
from rpat_cli.errors import RpatError, UserCodeError
from rpat_cli.evaluation.verify import check_precision
from rpat_cli.loading.architecture import Architecture
from rpat_cli.models import MODELS
from rpat_cli.recipe.schema import Recipe
from rpat_cli.user_code import is_out_of_memory, place_of, where_defined


def try_network(
    model: nn.Module, architecture: Architecture, recipe: Recipe, smallest: int
) -> None:
    """Raises `UserCodeError` for a network of a plugin that does not map images to logits, in train
    mode as in eval mode. `smallest` is the fewest that it will get; `model` is not to be used
    afterwards."""
    if not MODELS.is_added(recipe.model):
        return
    where = f"{where_defined(MODELS[recipe.model])}: the model {recipe.model!r}"
    try:
        check_precision(model)
    except RpatError as error:
        raise UserCodeError(f"{where}: {error}") from None
    x = torch.full((min(smallest, 2), *architecture.shape), 0.5)
    x += torch.linspace(-0.25, 0.25, x.numel()).view_as(x)  # not of one color
    for mode in ("eval", "train"):
        _try_mode(model.train(mode == "train"), x, architecture.classes, f"{where}, in {mode} mode")


def _try_mode(model: nn.Module, x: Tensor, classes: int, where: str) -> None:
    try:
        with own_randomness(x.device):
            logits = model(x)
    except Exception as error:
        if isinstance(error, RpatError) or is_out_of_memory(error):
            raise
        where = f"{place_of(error) or ''}: {where}".removeprefix(": ")
        hint = ""
        if len(x) == 1:
            hint = (
                " With this --batch-size and --accumulate, parts of the batch have 1 image, on "
                "which BatchNorm fails: use fewer or larger parts."
            )
        raise UserCodeError(
            f"{where}, fails on images of shape {tuple(x.shape)}: {type(error).__name__}: "
            f"{error}.{hint}"
        ) from error
    wanted = f"logits, one float tensor ({len(x)}, {classes})"
    if not isinstance(logits, Tensor):
        raise UserCodeError(f"{where}, must return {wanted}; it returned {type(logits).__name__}.")
    if logits.shape != (len(x), classes) or not logits.is_floating_point():
        raise UserCodeError(
            f"{where}, must return {wanted}; it returned {logits.dtype} of shape "
            f"{tuple(logits.shape)}."
        )
