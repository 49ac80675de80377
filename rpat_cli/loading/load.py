"""Anything that names a model, turned into a model to evaluate.

A name is tried as, in this order: a model of a library or of a Python file (`external`), a run
folder, a checkpoint that other code has written (`published`), a checkpoint of rpat.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.external import load_external
from rpat_cli.loading.foreign import is_foreign, misfit
from rpat_cli.loading.published import load_published
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.run_folder import open_run


def load_model(
    path: Path | str, checkpoint: str = "best", changes: Sequence[Layer] = ()
) -> SavedModel:
    """The model of a checkpoint file, or of a run folder (its `best` or `last` epoch), in eval mode
    on the CPU.

    A file that other code has saved, `torchvision:NAME` and `timm:NAME` with their trained weights,
    and the function `FILE.py:FUNCTION` load too, if `changes`, layers of a recipe, name their data
    set. Raises `CheckpointError` or `RunFolderError` for what is missing, damaged, or belongs to
    another model, and what `load_external` raises.
    """
    external = None if Path(path).exists() else load_external(str(path), changes)
    if external is not None:
        return external
    path = Path(path)
    if path.suffix == ".py":
        raise ConfigError(
            Problem(
                "",
                "is a program: name the function in it that returns the model.",
                str(path),
                f"Example: {path}:build",
            )
        )
    is_folder = (
        path.is_dir() if path.exists() else not path.suffix
    )  # what is missing is named after what it looks like
    file = open_run(path).checkpoint(checkpoint) if is_folder else path
    if path.is_file() and is_foreign(file):
        published, architecture, recipe = load_published(file, changes)
        return SavedModel(published, architecture, file, 0, recipe)
    if file.exists() and any("model" in layer.values for layer in changes):
        raise ConfigError(f"{file} says itself which network it holds; leave the model out.")
    content = load_checkpoint(file)
    recipe = resolve(
        [Layer(str(file), content["recipe"])]
    )  # before the model, which may be a plugin's
    architecture = Architecture.from_dict(content["architecture"])
    model = architecture.build()
    load_weights(model, content["model"], str(file))
    return SavedModel(model.eval(), architecture, file, content["epoch"], recipe)


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a checkpoint's weights. Raises `CheckpointError` naming what does not fit."""
    differences = misfit(state, model.state_dict())
    if differences:
        raise CheckpointError(f"{source} belongs to another model: {differences}.")
    model.load_state_dict(state)
