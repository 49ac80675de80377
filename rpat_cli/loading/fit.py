"""From what rpat has saved of a model to the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli.errors import CheckpointError, RpatError
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.foreign import misfit
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models import in_library
from rpat_cli.recipe.layers import Layer, resolve, with_plugins_in
from rpat_cli.records.metrics import is_number

MAX_MESSAGE = 300
"""Characters that are shown of what a file holds: it may be a list of a million numbers."""


def rebuilt(
    content: Mapping[str, Any], source: str, file: Path, base: Path, clean_acc: Any
) -> SavedModel:
    """The model of a checkpoint's `content`, of which recipe, architecture, model (its weights) and
    epoch have been checked, in eval mode on the CPU.

    `source` names it in errors, `base` is the folder that paths in its recipe are relative to, and
    `clean_acc` what is recorded of its accuracy, whatever that is. Raises `CheckpointError` where
    weights and network do not fit, and what `resolve` raises.
    """
    # The recipe comes first: it loads the plugin that the model may be from.
    recipe = resolve([with_plugins_in(Layer(source, content["recipe"]), base)])
    try:
        architecture = Architecture.from_dict(content["architecture"])
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    check_size(architecture, content["model"], source)
    model = architecture.build()
    load_weights(model, content["model"], source)
    return SavedModel(
        model.eval(),
        architecture,
        file,
        content["epoch"],
        recipe,
        recorded_acc=float(clean_acc) if is_number(clean_acc) else None,
        class_names=_class_names(content, architecture.classes),
    )


def _class_names(content: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """Of the outputs; empty where the file does not name each of them."""
    names = content.get("class_names")
    if not isinstance(names, list) or len(names) != outputs:
        return ()
    return tuple(map(str, names))


def check_size(architecture: Architecture, state: dict[str, Any], source: str) -> None:
    """Raise `CheckpointError` if a network is not the one that the weights are of, before it takes
    any memory: a small file may claim a billion classes."""
    if in_library(architecture.name):
        return  # they are tried with images while they are built
    try:
        with torch.device("meta"):  # shapes, but no numbers
            shapes = architecture.build().state_dict()
    except RpatError as error:
        message = f"{source} describes a network that cannot be built: {error}"
        raise CheckpointError(message[:MAX_MESSAGE]) from None
    except Exception:  # a network that computes with numbers while it is built
        return
    _check_fit(state, shapes, source)


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a checkpoint's weights. Raises `CheckpointError` naming what does not fit."""
    own = model.state_dict()
    _check_fit(state, own, source)
    # What fits may lack BatchNorm's counters of batches, on which no result depends.
    model.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def _check_fit(state: dict[str, Any], wanted: dict[str, Any], source: str) -> None:
    differences = misfit(state, wanted)
    if differences:
        raise CheckpointError(f"{source} belongs to another model: {differences}.")
