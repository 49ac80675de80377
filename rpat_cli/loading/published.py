"""Checkpoints that other code has written: weights without a recipe, which is made of a data set's
defaults and what the user gives."""

from collections.abc import Sequence
from pathlib import Path

from rpat_cli.data import DATASETS
from rpat_cli.data.normalization import normalization
from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.architecture import Architecture, image_shape
from rpat_cli.loading.foreign import load_foreign, nearest_architecture
from rpat_cli.loading.foreign_file import ImportedState, inferred_classes, load_state
from rpat_cli.loading.saved_model import SavedModel, external_folder
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe

OWN, GIVEN, ASSUMED = "of the file", "as given", "assumed"
"""How the normalization of a model is known."""


def names_data(layers: Sequence[Layer]) -> bool:
    """Whether any of these layers of a recipe names a data set."""
    sections = [layer.values["data"] for layer in layers if "data" in layer.values]
    return any(isinstance(section, str) or "name" in section for section in sections)


def load_published(file: Path, given: Sequence[Layer], key: str = "") -> SavedModel:
    """The model of a file of RPAT_Benchmarks, RPAT_SOTAs, Consistency-AT, ReBAT, RobustBench or
    similar code, in eval mode; `key` chooses among several in it.

    `given` are layers of a recipe: they name the data set, and the network if it cannot be
    recognized by its weights. The normalization is the file's own, or else that of
    `data.normalize_as` or of the data set. Raises `ConfigError` without a data set, and what
    `load_foreign` raises for a file that cannot be read or does not fit.
    """
    if not names_data(given):
        raise ConfigError(
            Problem(
                "",
                "was not written by rpat, so it does not record what the model was trained on.",
                str(file),
                "Name its data set with --data, and its network with --model if it cannot be "
                "recognized by its weights.",
            )
        )
    imported = load_state(file, key)
    recipe = resolve(given)
    named = any("model" in layer.values for layer in given)
    name = recipe.model if named else nearest_architecture(imported.tensors)
    if name is None:
        raise CheckpointError(
            f"{file}: looks like none of the known networks. Name its network with --model, or "
            "write a function that builds and loads it: --model-file FILE.py:FUNCTION."
        )
    spec, shape = DATASETS[recipe.data.name], image_shape(recipe.data)
    # A data set whose classes only its files know, or a file that knows more of them.
    classes = max(spec.classes or 0, inferred_classes(imported.tensors) or 0)
    mean, std = normalization(recipe.data.normalize_as or recipe.data.name, shape[0])
    model = load_foreign(
        name, file, shape=shape, classes=classes or None, mean=mean, std=std, imported=imported
    )
    constants = tuple(model.mean.flatten().tolist()), tuple(model.std.flatten().tolist())
    how, remark = _how_normalized(imported, recipe)
    return SavedModel(
        model,
        Architecture(name, shape, classes, *constants),
        file,
        0,
        resolve([*given, Layer(str(file), {"model": name})]),
        external_folder(file, f"{file.stem}-{key}" if key else ""),
        normalized=how,
        recorded_acc=imported.clean_acc,
        key=key,
        remarks=tuple(f"{file.name}: {each}" for each in (*imported.remarks, remark) if each),
    )


def _how_normalized(imported: ImportedState, recipe: Recipe) -> tuple[str, str]:
    """How the normalization is known, and what to say of it."""
    if imported.mean is not None:
        asked = recipe.data.normalize_as
        return OWN, f"its own normalization is used, not {asked}" if asked else ""
    if recipe.data.normalize_as is not None:
        return GIVEN, ""
    return ASSUMED, (
        "does not record how its images are normalized: that of the data set "
        f"{recipe.data.name} is used. If it was trained with another, name it: --normalize "
        "none|cifar10|imagenet|MEAN/STD"
    )
