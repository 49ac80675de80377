"""The models of `hf:USER/NAME`: those that `rpat push` has sent, with all that rpat knew of them,
and the weights of others, like any foreign file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.loading.fit import rebuilt
from rpat_cli.loading.foreign_file import read_content
from rpat_cli.loading.hub import HubFiles, fetch
from rpat_cli.loading.published import load_published
from rpat_cli.loading.saved_model import SavedModel, external_folder
from rpat_cli.models.hub_name import HubName
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.portable import portable
from rpat_cli.records.metrics import is_count
from rpat_cli.records.regular import read_regular
from rpat_cli.version import __version__

FORMAT = 1

NEEDED: Mapping[str, Callable[[Any], bool]] = {
    "architecture": lambda value: isinstance(value, dict),
    "recipe": lambda value: isinstance(value, dict),
    "epoch": is_count,
}


def description(saved: SavedModel) -> dict[str, Any]:
    """What is said of a model next to its weights: plain builtins, ready for JSON.

    No folders of this machine, and no plugins: their code is never downloaded, so whoever needs
    them names their own files.
    """
    return {
        "format": FORMAT,
        "rpat": __version__,
        "checkpoint": saved.file.stem,
        "epoch": saved.epoch,
        "architecture": saved.architecture.to_dict(),
        "class_names": list(saved.class_names),
        "clean_acc": saved.recorded_acc,
        "recipe": {**portable(saved.recipe).model_dump(mode="json"), "plugins": []},
    }


def read_description(file: Path, name: HubName) -> dict[str, Any]:
    """What `description` returned. Raises `CheckpointError` for anything else."""
    try:
        found = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: its {file.name} is damaged.") from error
    values = found if isinstance(found, dict) else {}
    if isinstance(values.get("format"), int) and values["format"] > FORMAT:
        raise CheckpointError(f"{name} was pushed by a newer version of rpat. Please upgrade rpat.")
    wrong = [key for key, is_right in NEEDED.items() if not is_right(values.get(key))]
    if wrong:
        raise CheckpointError(f"{name}: its {file.name} is damaged: it lacks {', '.join(wrong)}.")
    return values


def load_from_hub(text: str, given: Sequence[Layer]) -> SavedModel:
    """The model of `hf:USER/NAME[@REVISION][:FILE]`, in eval mode on the CPU.

    `given` are layers of a recipe; for a model that rpat has not pushed they name its data set, and
    its network if need be. Raises what `HubName.parse`, `fetch` and `load_published` raise, and
    `CheckpointError` for files that are damaged or do not fit each other.
    """
    name = HubName.parse(text)
    files = fetch(name)
    if files.description is None:
        saved = load_published(files.weights, given)
    else:
        saved = read_pushed(files, files.description, given)
    readable = name.repo.replace("/", "-")
    remark = f"{name} at commit {files.commit[:12]}"
    home = external_folder(files.weights, readable)
    return replace(saved, home=home, remarks=(remark, *saved.remarks))


def read_pushed(files: HubFiles, about: Path, given: Sequence[Layer] = ()) -> SavedModel:
    """The model of the weights and the description that rpat has made. Raises as `load_from_hub`
    does."""
    name = str(files.name)
    if any("model" in layer.values for layer in given):
        raise ConfigError(f"{name} records which network it holds: name no other (--model).")
    values = read_description(about, files.name)
    content = {**values, "model": read_content(files.weights)}
    return rebuilt(content, name, files.weights, files.weights.parent, values.get("clean_acc"))
