"""Recipe values from several places, laid over one another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rpat_cli.recipe import defaults
from rpat_cli.recipe.schema import Recipe, switches
from rpat_cli.recipe.spelling import spelled
from rpat_cli.recipe.start import network_of
from rpat_cli.recipe.yaml_lines import KeyPath

NAMED = ("data", "method", "schedule", "attack", "mix", "optimizer")
"""Sections that may be written as a bare name: `method: trades`."""

OWNERS = ("method", "schedule")
"""Those of them whose settings are of the entry that is named."""

RENAMED: dict[KeyPath, KeyPath] = {("data", "normalise_as"): ("data", "normalize_as")}
"""Keys of recipes written by earlier versions, and what they are called now."""


@dataclass
class Layer:
    """Nested recipe values with one origin; `lines` has the line of each key, for a file.

    `by_user`: given in this very command or call, not read from a file that may be a stranger's.
    """

    source: str
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    by_user: bool = False

    def __post_init__(self) -> None:
        self.values = spelled(self.values)

    def origin(self, path: KeyPath) -> str:
        line = self.lines.get(path)
        return f"{self.source}:{line}" if line else self.source


def _beneath(given: Mapping[str, Any]) -> list[Layer]:
    """What lies beneath everything given. Named sections are there with their default name, so that
    their settings can be given alone: `--beta 3`."""
    names = {key: Recipe.model_fields[key].default.name for key in ("method", "schedule")}
    source = f"defaults of {defaults.data_name(given)}"
    beneath = [Layer("default", names), Layer(source, defaults.of_data_set(given))]
    if network := network_of(given.get("init")):
        beneath.append(Layer(f"the network of {given['init']}", {"model": network}))
    return beneath


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The layers over one another, over what lies beneath, and where each value came from."""
    first = next((i for i, layer in enumerate(layers) if layer.by_user), len(layers))
    layers = [*layers[:first], *_names_given(layers[first:]), *layers[first:]]
    given, _ = _merged(layers)
    return _merged([*_beneath(given), *layers])


def _names_given(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The methods and schedules that the user names in any of these. They lie beneath all of them,
    too: what is set without a name, as in `--set method.beta=3 --method trades`, is theirs."""
    for layer in layers:
        for key in OWNERS:
            section = _long_form(key, layer.values.get(key))
            if layer.by_user and isinstance(section, Mapping) and "name" in section:
                yield replace(layer, values={key: {"name": section["name"]}})


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The layers over one another, and where each value came from."""
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, str] = {}
    for layer in layers:
        values = {key: _long_form(key, value) for key, value in layer.values.items()}
        _merge(merged, values, layer, origins)
    return merged, origins


def _long_form(key: str, value: Any) -> Any:
    """The long form of a bare name or a bare `true`: a mapping."""
    if key in NAMED and isinstance(value, str):
        return {"name": value}
    return {} if value is True and key in switches() else value


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    layer: Layer,
    origins: dict[KeyPath, str],
    prefix: KeyPath = (),
) -> None:
    for written, value in values.items():
        written_path = (*prefix, str(written))
        path = RENAMED.get(written_path, written_path)
        key = written if path == written_path else path[-1]
        origins[path] = layer.origin(written_path)
        old = into.get(key)
        if isinstance(value, Mapping):
            keeps = isinstance(old, Mapping) and not _replaces(path, old, value)
            into[key] = dict(old) if keeps and old else {}
            _merge(into[key], value, layer, origins, path)
        else:
            if isinstance(value, list) or isinstance(old, list):
                _note_items(path, value, layer, origins)
            into[key] = value


def _note_items(path: KeyPath, value: Any, layer: Layer, origins: dict[KeyPath, str]) -> None:
    """The items of a list come from where the list does, and those of an earlier list are gone."""
    stale = [other for other in origins if len(other) > len(path) and other[: len(path)] == path]
    for other in stale:
        del origins[other]
    for index in range(len(value) if isinstance(value, list) else 0):
        item = (*path, str(index))
        origins[item] = layer.origin(item) if item in layer.lines else layer.origin(path)


def _replaces(path: KeyPath, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """With another method or schedule, the settings of the former one mean nothing any more."""
    owns = len(path) == 1 and path[0] in OWNERS
    return owns and "name" in new and new["name"] != old.get("name")
