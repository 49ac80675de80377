"""From anything that names a model to a model that can be evaluated.

`load_model` dispatches: a model of RobustBench (`zoo`), one of the hub (`hub_model`), a library's
model or one of a Python file (`external`), a checkpoint that other code has written (`published`),
a checkpoint of rpat, given as such or by its run folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.external import load_external
from rpat_cli.loading.fit import rebuilt
from rpat_cli.loading.foreign_file import is_foreign
from rpat_cli.loading.hub_model import load_from_hub
from rpat_cli.loading.named import run_or_path
from rpat_cli.loading.published import load_published
from rpat_cli.loading.robustbench import is_entry
from rpat_cli.loading.saved_model import SavedModel, run_of
from rpat_cli.loading.zoo import load_entry
from rpat_cli.models.hub_name import HUB
from rpat_cli.recipe.layers import Layer
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.run_folder import open_run


def load_model(
    path: Path | str, checkpoint: str = "best", changes: Sequence[Layer] = ()
) -> SavedModel:
    """The model of a checkpoint file, or of a run folder (its checkpoint `best`, `last`, `best_wa`
    or `last_wa`), in eval mode on the CPU.

    Also loads `robustbench:NAME`, `hf:USER/NAME`, and if `changes`, layers of a recipe, name a
    data set: a file that other code has saved (`FILE:KEY` names the weights in a file that holds
    several), `torchvision:NAME` and `timm:NAME` with their trained weights, and what `FUNCTION` of
    `FILE.py:FUNCTION` returns. Raises `CheckpointError` or `RunFolderError` for what is missing,
    damaged, or belongs to another model, and what `user_path` and `load_external` raise.
    """
    path = run_or_path(path)  # raises for what can be no path
    if is_entry(str(path)):
        return load_entry(str(path), changes)
    if str(path).startswith(HUB):
        return load_from_hub(str(path), changes)
    external = None if Path(path).exists() else load_external(str(path), changes)
    if external is not None:
        return external
    path, key = split_key(Path(path))
    if path.suffix == ".py":
        message = "is a program: name the function in it that returns the model."
        raise ConfigError(Problem("", message, str(path), f"Example: {path}:build"))
    # If there is nothing at this path, the error is that of what the path looks like.
    is_folder = path.is_dir() if path.exists() else not path.suffix
    file = open_run(path).checkpoint(checkpoint) if is_folder else path
    if path.is_file() and is_foreign(file):
        return load_published(file, changes, key)
    if key:
        raise ConfigError(f"{file} is a checkpoint of rpat, with one network: leave out :{key}")
    if file.exists() and any("model" in layer.values for layer in changes):
        raise ConfigError(f"{file} records which network it holds: name no other (--model).")
    content = load_checkpoint(file, needs=("recipe", "architecture", "model", "epoch"))
    check_content(content, file)
    return rebuilt(content, str(file), file, _base_of(file), _recorded_accuracy(content, file))


def _recorded_accuracy(content: Mapping[str, Any], file: Path) -> Any:
    """On clean validation images, of this very model; None where it was not measured."""
    suffix = AVERAGED if file.stem.endswith(AVERAGED) else ""
    validation = content.get("validation")
    return validation.get(f"clean_acc{suffix}") if isinstance(validation, Mapping) else None


def split_key(path: Path) -> tuple[Path, str]:
    """`FILE:KEY` as file and key; the path and "" where there is no such file."""
    file, colon, key = str(path).rpartition(":")
    if not path.exists() and colon and key and Path(file).is_file():
        return Path(file), key
    return path, ""


def check_content(content: Mapping[str, Any], file: Path) -> None:
    """Raise `CheckpointError` if what a checkpoint of rpat must have is of another type."""
    model = content["model"]
    tensors = list(model.values()) if isinstance(model, Mapping) else []
    right = {
        "recipe": isinstance(content["recipe"], Mapping),
        "architecture": isinstance(content["architecture"], Mapping),
        "model": bool(tensors)
        and all(isinstance(each, Tensor) and each.layout == torch.strided for each in tensors),
        "epoch": isinstance(content["epoch"], int) and content["epoch"] >= 0,
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        raise CheckpointError(
            f"{file} is damaged or of another version of rpat: its {', '.join(wrong)} cannot be "
            "read."
        )


def _base_of(file: Path) -> Path:
    """The folder that paths in a checkpoint's recipe are relative to."""
    run = run_of(file)
    return file.parent if run is None else run.path
