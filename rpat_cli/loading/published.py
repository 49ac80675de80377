"""Checkpoints that other code has written: weights without a recipe, which is made of a data set's
defaults and what the user gives."""

from collections.abc import Sequence
from pathlib import Path

from rpat_cli.data import DATASETS
from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.architecture import Architecture, image_shape
from rpat_cli.loading.foreign import load_foreign, nearest_architecture
from rpat_cli.loading.foreign_file import inferred_classes, load_state
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe


def names_data(layers: Sequence[Layer]) -> bool:
    """Whether any of these layers of a recipe names a data set."""
    sections = [layer.values["data"] for layer in layers if "data" in layer.values]
    return any(isinstance(section, str) or "name" in section for section in sections)


def load_published(file: Path, given: Sequence[Layer]) -> tuple[Classifier, Architecture, Recipe]:
    """The model of a file of RPAT_Benchmarks, RPAT_SOTAs, Consistency-AT, ReBAT, RobustBench or
    similar code, in eval mode.

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
    state = load_state(file).tensors
    recipe = resolve(given)
    named = any("model" in layer.values for layer in given)
    name = recipe.model if named else nearest_architecture(state)
    if name is None:
        raise CheckpointError(
            f"{file}: looks like none of the known networks. Name its network with --model."
        )
    spec, shape = DATASETS[recipe.data.name], image_shape(recipe.data)
    constants = DATASETS[recipe.data.normalize_as or recipe.data.name]
    mean, std = constants.constants(shape[0])
    model = load_foreign(name, file, shape=shape, classes=spec.classes, mean=mean, std=std)
    architecture = Architecture(
        name,
        shape,
        spec.classes or inferred_classes(state) or 0,
        tuple(model.mean.flatten().tolist()),
        tuple(model.std.flatten().tolist()),
    )
    return model, architecture, resolve([*given, Layer(str(file), {"model": name})])
