"""What plugins bring is tried before the training: the network in both modes, on a batch as small
as the training's smallest; schedule, augmentations and mixing once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.side_effects import own_randomness
from rpat_cli.data import AUGMENTATIONS, MIXINGS
from rpat_cli.data.augment import build_augment, names_of
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import RpatError, UserCodeError
from rpat_cli.evaluation.verify import check_precision
from rpat_cli.loading.architecture import Architecture
from rpat_cli.models import MODELS
from rpat_cli.recipe.schema import Recipe
from rpat_cli.user_code import ascribed, calling, is_out_of_memory, place_of, where_defined


def try_network(
    model: nn.Module, architecture: Architecture, recipe: Recipe, smallest: int
) -> None:
    """Raises `UserCodeError` for a network of a plugin that does not map images to logits, in train
    mode as in eval mode, and for any network that fails on a single image where it will get one.
    `smallest` is the fewest images that it will get; `model` is not to be used afterwards."""
    where = f"the model {recipe.model!r}"
    if MODELS.is_added(recipe.model):
        where = f"{where_defined(MODELS[recipe.model])}: {where}"
    elif smallest > 1:
        return
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


def try_parts(recipe: Recipe, architecture: Architecture) -> None:
    """Raises `UserCodeError` for a schedule, an augmentation or a mixing of a plugin that does not
    return what the training needs."""
    shape, classes = architecture.shape, architecture.classes
    if SCHEDULES.is_added(recipe.schedule.name):
        schedule = recipe.schedule.build(SCHEDULES)
        with _tried(schedule, "schedule(epoch, epochs)"):
            for epoch in (0.0, 0.5, recipe.epochs - 0.5):
                _check_factor(schedule, schedule(epoch, recipe.epochs))
    x = torch.linspace(0.0, 1.0, 2 * math.prod(shape)).view(2, *shape)
    for spec in (*recipe.data.augment, *recipe.data.augment_from.augment):
        for name in filter(AUGMENTATIONS.is_added, names_of([spec])):
            with _tried(AUGMENTATIONS[name], "augment(x)"):
                made = build_augment([spec], min(shape[1:]))(x.clone())
                _check_tensor(AUGMENTATIONS[name], "images", made, x)
    if recipe.mix and MIXINGS.is_added(recipe.mix.name):
        mixing, y = recipe.mix.build(MIXINGS), torch.eye(classes)[[0, classes - 1]]
        with _tried(mixing, "mixing(x, y, views)"):
            mixed: Any = mixing(x.clone(), y.clone(), 1)
            if not isinstance(mixed, tuple) or len(mixed) != 2:
                raise _wrong(mixing, "must return two tensors, images and labels", mixed)
            _check_tensor(mixing, "images", mixed[0], x)
            _check_tensor(mixing, "labels", mixed[1], y)


@contextmanager
def _tried(part: object, form: str) -> Iterator[None]:
    with own_randomness(torch.device("cpu")), ascribed(), calling(part, form):
        yield


def _check_factor(schedule: object, factor: Any) -> None:
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not number or not math.isfinite(factor) or factor < 0:
        rule = "must return a finite number, at least 0: the factor of the peak learning rate"
        raise _wrong(schedule, rule, factor)


def _check_tensor(part: object, what: str, made: Any, like: Tensor) -> None:
    rule = f"must return {what} as one float tensor of shape {tuple(like.shape)}"
    if not isinstance(made, Tensor) or made.shape != like.shape or made.dtype != like.dtype:
        raise _wrong(part, rule, made)


def _wrong(part: object, rule: str, returned: Any) -> UserCodeError:
    found = repr(returned)[:80]
    if isinstance(returned, Tensor):
        found = f"{returned.dtype} of shape {tuple(returned.shape)}"
    return UserCodeError(f"{where_defined(part)}: {rule}; it returned {found}.")
