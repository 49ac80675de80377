"""The recipe's key `init`, once and for all: `last`, `best` and a run's name become the run's path,
since another time they would mean another run; `robustbench:NAME` gets its leaderboard."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rpat_cli.errors import ConfigError
from rpat_cli.loading.named import run_or_path
from rpat_cli.loading.published import names_data
from rpat_cli.loading.robustbench import find_entry, is_entry
from rpat_cli.loading.zoo import asked_norm
from rpat_cli.models import is_remote
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.run_folder import is_run


def with_start_named(layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a recipe with such an `init`; one beneath them has the network of an entry.

    Raises `RunFolderError` for "last" and "best" without any run, and `ConfigError` for an entry
    that there is not.
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
        init = _run(init)
    named = replace(last, values={**last.values, "init": init})
    return [*beneath, *layers[: at[-1]], named, *layers[at[-1] + 1 :]]


def _run(init: str) -> str:
    try:
        path = run_or_path(init)
    except ConfigError:  # it can be no path, which the recipe says
        return init
    return str(path) if is_run(path) and not Path(init).exists() else init
