"""Models of RobustBench by name: the files of `robustbench:NAME`, the network that they are of, and
the normalization that it was measured with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from rpat_cli.data.normalization import Constants, normalization
from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.architecture import Architecture, image_shape
from rpat_cli.loading.foreign import load_foreign
from rpat_cli.loading.foreign_file import ImportedState, inferred_classes, load_state
from rpat_cli.loading.published import names_data
from rpat_cli.loading.robustbench import OF_FILE, Entry, find_entry, find_files
from rpat_cli.loading.saved_model import SavedModel, external_folder
from rpat_cli.models.combined import Ensemble, constants_text, standardizing
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe


def load_entry(name: str, given: Sequence[Layer]) -> SavedModel:
    """The model of `robustbench:NAME`, in eval mode.

    `given` are layers of a recipe: their data set and norm choose among the leaderboards that have
    the name; where they name none, those of the entry are used. The files are looked for below
    `$ROBUSTBENCH_DIR` and the data root. Raises `ConfigError` for a name that is unknown or is on
    several leaderboards, and `CheckpointError` for files that are missing or do not fit.
    """
    if any("model" in layer.values for layer in given):
        raise ConfigError(Problem("", "is a whole model: remove --model.", name))
    data = resolve(given).data.name if names_data(given) else None
    entry = find_entry(name, data, asked_norm(given))
    beneath = entry.recipe_values()
    if data not in (None, entry.data):
        del beneath["data"]
    layers = [Layer(str(entry), beneath), *given]
    recipe = resolve(layers)
    files = find_files(entry, [Path(recipe.data.root)])
    states = [load_state(file, prefer=entry.key) for file in files]
    model = _model(entry, recipe, states)
    classes = inferred_classes(states[0].tensors) or 0
    remark = f"{entry}: {entry.network}, normalization {entry.normalization}, as in RobustBench"
    return SavedModel(
        model,
        Architecture(entry.network, image_shape(recipe.data), classes, *model.constants),
        files[0],
        0,
        resolve([*layers, Layer(str(entry), {"model": entry.network})]),
        external_folder(files[0], entry.name),
        recorded_acc=entry.clean_acc if recipe.data.name == entry.data else None,
        further_files=tuple(files[1:]),
        remarks=(remark, *(f"{state.path.name}: {r}" for state in states for r in state.remarks)),
    )


def asked_norm(given: Sequence[Layer]) -> str | None:
    """The norm that the layers of a recipe name."""
    sections = [layer.values.get("threat") for layer in given]
    norms = [str(each["norm"]) for each in sections if isinstance(each, Mapping) and "norm" in each]
    return norms[-1] if norms else None


def _model(entry: Entry, recipe: Recipe, states: Sequence[ImportedState]) -> Classifier:
    """The network of each file, behind one normalization."""
    shape, (mean, std) = image_shape(recipe.data), _constants(entry, states[0], recipe)
    members: list[nn.Module] = []
    for state in states:
        classifier = load_foreign(
            entry.network, state.path, shape=shape, mean=mean, std=std, imported=state
        )
        mean, std = classifier.constants
        members.append(classifier.net)
    net = Ensemble(members) if entry.files > 1 else members[0]
    return Classifier(standardizing(net, entry.normalization), mean, std).eval()


def _constants(entry: Entry, state: ImportedState, recipe: Recipe) -> Constants:
    """What normalizes the images unless the file has constants of its own."""
    text = constants_text(entry.normalization)
    if text != OF_FILE:
        return normalization(text, image_shape(recipe.data)[0])
    if state.mean is None or state.std is None:
        raise CheckpointError(
            f"{state.path}: lacks the mean and standard deviation (mu, sigma) that the file of "
            f"{entry.name} has. It is another file, or an incomplete one."
        )
    return state.mean, state.std
