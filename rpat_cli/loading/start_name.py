"""The trained networks that a recipe names, once and for all: `last`, `best` and a run's name
become the run's path, since another time they would mean another run; `robustbench:NAME` gets its
leaderboard."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.loading.named import run_or_path
from rpat_cli.loading.published import names_data
from rpat_cli.loading.robustbench import find_entry, is_entry
from rpat_cli.loading.zoo import asked_norm
from rpat_cli.methods import METHODS
from rpat_cli.methods.declare import Frozen
from rpat_cli.models import is_remote
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.start import PER_TRIAL, SEED
from rpat_cli.records.run_folder import is_run

Meaning = Callable[[str], str]
"""From what somebody wrote to the path of the run that it means; anything else stays."""


def run_meant(text: str) -> str:
    """The path of the run that is called so now. Raises `RunFolderError` for "last" and "best"
    without any run."""
    try:
        path = run_or_path(text)
    except ConfigError:  # it can be no path, which the recipe says
        return text
    return str(path) if is_run(path) and not Path(text).exists() else text


def with_start_named(layers: Sequence[Layer], meaning: Meaning = run_meant) -> list[Layer]:
    """The layers of a recipe with such an `init`; one beneath them has the network of an entry.

    Raises what `meaning` does, and `ConfigError` for an entry that there is not.
    """
    at = [i for i, layer in enumerate(layers) if "init" in layer.values]
    if not at or not isinstance(layers[at[-1]].values["init"], str):
        return list(layers)
    last = layers[at[-1]]
    init, beneath = last.values["init"], []
    if is_entry(init):
        data = resolve(layers).data.name if names_data(layers) else None
        entry = find_entry(init, data, asked_norm(layers))
        init = str(entry)
        beneath = [Layer(f"the network of {entry}", {"model": entry.network})]
    elif not is_remote(init):
        init = meaning(init)
    named = replace(last, values={**last.values, "init": init})
    return [*beneath, *layers[: at[-1]], named, *layers[at[-1] + 1 :]]


def frozen_in(recipe: Recipe) -> dict[str, str]:
    """The trained networks that the method learns from, as they are named, by its settings."""
    networks = recipe.method.build(METHODS).networks
    frozen = {name: each.source for name, each in networks.items() if isinstance(each, Frozen)}
    return {name: source for name, source in frozen.items() if name in recipe.method.options}


def with_networks_named(recipe: Recipe, meaning: Meaning = run_meant) -> Recipe:
    """The recipe with such names of the networks that its method learns from. Raises as
    `with_start_named` does, and `ConfigError` for the placeholder of a sweep file."""
    frozen = frozen_in(recipe)
    unfilled = [name for name, source in frozen.items() if SEED in source]
    if unfilled:
        raise ConfigError(*(Problem(f"method.{name}", PER_TRIAL) for name in unfilled))
    named = {name: _named(source, recipe, meaning) for name, source in frozen.items()}
    return recipe.model_copy(update={"method": recipe.method.model_copy(update=named)})


def _named(source: str, recipe: Recipe, meaning: Meaning) -> str:
    if is_entry(source):
        return str(find_entry(source, recipe.data.name, recipe.threat.norm))
    return source if is_remote(source) else meaning(source)
