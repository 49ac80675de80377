"""Checkpoints that other code has written: weights without a recipe, which is made of a data set's
defaults and what the user gives."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rpat_cli.data import DATASETS
from rpat_cli.data.normalization import normalization
from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.architecture import Architecture, image_shape
from rpat_cli.loading.foreign import in_common, load_foreign, nearest_architecture
from rpat_cli.loading.foreign_file import ImportedState, inferred_classes, load_state
from rpat_cli.loading.robustbench import OF_FILE, Entry, entries_of_file, preferred_key
from rpat_cli.loading.saved_model import SavedModel, external_folder
from rpat_cli.models import in_library
from rpat_cli.models.combined import constants_text, standardizing
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe

OWN, GIVEN, PUBLISHED, ASSUMED = "of the file", "as given", "as in RobustBench", "assumed"
"""How the normalization of a model is known."""

DEEPMIND_NAMES = re.compile(r"^(meansparse-)?(dm|ra)-")
"""Networks whose normalization is part of their program, never of their files."""

DEEPMIND = {
    "cifar10": "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616",
    "cifar100": "0.5071,0.4865,0.4409/0.2673,0.2564,0.2762",
}
"""Their constants: for CIFAR-10 they differ from ours in the fourth digit."""


def names_data(layers: Sequence[Layer]) -> bool:
    """Whether any of these layers of a recipe names a data set."""
    sections = [layer.values["data"] for layer in layers if "data" in layer.values]
    return any(
        isinstance(section, str) or (isinstance(section, Mapping) and "name" in section)
        for section in sections
    )


def load_published(file: Path, given: Sequence[Layer], key: str = "") -> SavedModel:
    """The model of a file of RPAT_Benchmarks, RPAT_SOTAs, Consistency-AT, ReBAT, RobustBench or
    similar code, in eval mode; `key` chooses among several in it.

    `given` are layers of a recipe: they name the data set, and the network if it cannot be
    recognized by its weights. The normalization is the file's own, or else that of
    `data.normalize_as` or of the data set. Raises `ConfigError` without a data set, and what
    `load_foreign` raises for a file that cannot be read or does not fit.
    """
    if not names_data(given):
        raise ConfigError(_without_data(file))
    recipe = resolve(given)
    alike = entries_of_file(file, recipe.data.name)
    imported = load_state(file, key, prefer=preferred_key(alike))
    named = any("model" in layer.values for layer in given)
    name = recipe.model if named else _recognized(imported, alike)
    spec, shape = DATASETS[recipe.data.name], image_shape(recipe.data)
    # A data set whose classes only its files know, or a file that knows more of them.
    classes = max(spec.classes or 0, inferred_classes(imported.tensors) or 0)
    entry = next((entry for entry in alike if entry.network == name), None)
    how, constants, remark = _normalized(imported, recipe, name, entry)
    mean, std = normalization(constants_text(constants), shape[0])
    model = load_foreign(
        name, file, shape=shape, classes=classes or None, mean=mean, std=std, imported=imported
    )
    model.net = standardizing(model.net, constants)
    return SavedModel(
        model,
        Architecture(name, shape, classes, *model.constants),
        file,
        0,
        resolve([*given, Layer(str(file), {"model": name})]),
        external_folder(file, f"{file.stem}-{key}" if key else ""),
        normalized=how,
        recorded_acc=_recorded(imported, entry),
        key=key,
        remarks=tuple(f"{file.name}: {each}" for each in (*imported.remarks, remark) if each),
    )


def _without_data(file: Path) -> Problem:
    message = "was not written by rpat, so it does not record what the model was trained on."
    hint = (
        "Name its data set with --data, and its network with --model if it cannot be recognized by "
        "its weights."
    )
    return Problem("", message, str(file), hint)


def _recognized(imported: ImportedState, alike: Sequence[Entry]) -> str:
    """The network that has the file's names and shapes; or that of the entry of RobustBench that
    the file is named after, where it is one of another library. Raises `CheckpointError`."""
    nearest = nearest_architecture(imported.tensors)
    if nearest is not None and in_common(imported.tensors, nearest) == 1:
        return nearest
    name = next((entry.network for entry in alike if in_library(entry.network)), nearest)
    if name is None:
        raise CheckpointError(
            f"{imported.path}: looks like none of the known networks. Name its network with "
            "--model, or write a function that builds and loads it: --model-file FILE.py:FUNCTION."
        )
    return name


def _recorded(imported: ImportedState, entry: Entry | None) -> float | None:
    """The clean accuracy that the file records, or else the leaderboard."""
    if imported.clean_acc is None and entry is not None:
        return entry.clean_acc
    return imported.clean_acc


def _normalized(
    imported: ImportedState, recipe: Recipe, name: str, entry: Entry | None
) -> tuple[str, str, str]:
    """How the normalization is known, what it is, as `normalization` takes it, or `per-image`, and
    what to say of it."""
    asked, data = recipe.data.normalize_as, recipe.data.name
    if imported.mean is not None:
        remark = f"its own normalization is used, not {asked}" if asked else ""
        return OWN, data, remark
    if asked is not None:
        return GIVEN, asked, ""
    if entry is not None and entry.normalization != OF_FILE:
        remark = (
            f"by its name, this is {entry.name} of RobustBench: normalization "
            f"{entry.normalization}, as there. If it is not, give it with --normalize"
        )
        return PUBLISHED, entry.normalization, remark
    layout = DEEPMIND if DEEPMIND_NAMES.search(name) else {}
    remark = (
        "does not record how its images are normalized: that of "
        f"{'DeepMind for ' if data in layout else 'the data set '}{data} is used. If it was "
        "trained with another, name it: --normalize none|cifar10|imagenet|MEAN/STD"
    )
    return ASSUMED, layout.get(data, data), remark
