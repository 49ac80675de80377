"""From files and flags to one checked `Recipe`, and back to YAML.

Layers, each overriding the one before: defaults < the data set's own defaults < `--recipe` <
`--config` files in order < `--set` < named flags; a file lies over those that it `extends`. Every
value remembers where it came from, so that all mistakes can be listed at once, each with its place,
what was given, and what is allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rpat_cli.errors import ConfigError, Mistakes, Problem, shortened
from rpat_cli.recipe import defaults
from rpat_cli.recipe.merging import Layer, merge
from rpat_cli.recipe.mistakes import contradictions, in_our_words
from rpat_cli.recipe.plugin_files import NamedPlugin
from rpat_cli.recipe.plugins import load_named_plugins
from rpat_cli.recipe.schema import Recipe, recipe_class
from rpat_cli.recipe.shipped import find
from rpat_cli.recipe.trust import model_files, networks_named, trust, trusting
from rpat_cli.recipe.yaml_lines import KeyPath, read_document
from rpat_cli.recipe.yaml_loader import Loader
from rpat_cli.records.files import user_path

__all__ = [
    "Layer",
    "code_named_in",
    "flag_layers",
    "layers_of",
    "load_plugins",
    "nested",
    "parse_assignments",
    "read_all",
    "read_recipe",
    "read_yaml",
    "resolve",
    "to_yaml",
    "with_plugins_in",
]

# ---- reading


def read_yaml(path: Path) -> Layer:
    """One recipe file. Raises `ConfigError` for a file that is missing, not YAML, not a mapping, or
    has a duplicate key."""
    values, lines = read_document(path)
    if values is None:
        return Layer(str(path), {})
    if not isinstance(values, dict):
        message = "a recipe is a mapping of keys to values."
        raise ConfigError(Problem("", message, str(path), "Example: 'epochs: 30'."))
    return Layer(str(path), values, lines)


def read_recipe(path: Path) -> list[Layer]:
    """The layers of a recipe file: of everything it `extends`, then its own. A file that is reached
    a second time counts once.

    `extends` holds one reference or a list: the name of a shipped recipe, or a path ending in
    .yaml, relative to the file. Raises `ConfigError` for what `read_yaml` does, for unknown names,
    and for files that extend one another.
    """
    layers: dict[Path, Layer] = {}
    _collect(path, (), layers)
    return list(layers.values())


def _collect(path: Path, below: tuple[Path, ...], layers: dict[Path, Layer]) -> None:
    named_in = str(below[-1]) if below else ""
    here = user_path(path, "extends" if below else "", named_in).resolve()
    if here in below:
        circle = " -> ".join(file.name for file in (*below[below.index(here) :], here))
        raise ConfigError(Problem("extends", f"the files extend one another: {circle}.", named_in))
    if here in layers:
        return
    layer = read_yaml(path)
    origin = layer.origin(("extends",))
    for reference in _strings("extends", layer.values.pop("extends", []), origin):
        is_file = reference.endswith((".yaml", ".yml"))
        _collect(
            path.parent / reference if is_file else find(reference, origin), (*below, here), layers
        )
    if "plugins" in layer.values:
        layer = with_plugins_in(layer, path.parent)
    layers[here] = layer


def with_plugins_in(layer: Layer, folder: Path) -> Layer:
    """The same layer, where the paths of plugins are relative to `folder`."""
    if "plugins" not in layer.values:
        return layer
    plugins = _strings("plugins", layer.values["plugins"], layer.origin(("plugins",)))
    inside = [str(NamedPlugin.parse(plugin).inside(folder)) for plugin in plugins]
    return replace(layer, values={**layer.values, "plugins": inside})


def _strings(key: str, value: Any, source: str) -> list[str]:
    """One string or a list of them. Raises `ConfigError` for anything else."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
        raise ConfigError(
            Problem(key, f"{value!r}: should be one name or a list of names.", source)
        )
    return list(values)


def read_all(recipe: str | None = None, configs: Sequence[Path] = ()) -> list[Layer]:
    """The layers of a shipped recipe, if one is named, and of the recipe files laid over it, in
    order."""
    layers: list[Layer] = []
    mistakes = Mistakes()
    if recipe is not None:
        with mistakes.gathered():
            layers += read_recipe(find(recipe))
    for config in configs:
        with mistakes.gathered():
            layers += read_recipe(config)
    mistakes.check()
    return layers


def parse_assignments(assignments: Sequence[str]) -> list[Layer]:
    """`["optimizer.lr=0.05"]` from `--set`, one layer each; values are read as YAML.

    Raises `ConfigError` with every assignment that is not of the form key=value.
    """
    layers, problems = [], []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            message = f"{shortened(text)!r} is not of the form key=value."
            problems.append(Problem("", message, "--set", "Example: optimizer.lr=0.05"))
            continue
        try:
            parsed = yaml.load(value, Loader=Loader)
        except yaml.YAMLError:
            parsed = value
        values = nested(tuple(key.strip().split(".")), parsed)
        layers.append(Layer(f"--set {shortened(text)}", values, by_user=True))
    if problems:
        raise ConfigError(*problems)
    return layers


def flag_layers(flags: Mapping[str, tuple[KeyPath, Any]]) -> list[Layer]:
    """One layer for each flag that was given: `{"--beta": (("method", "beta"), "3")}`."""
    return [
        Layer(flag, nested(path, value), by_user=True)
        for flag, (path, value) in flags.items()
        if value is not None
    ]


def layers_of(
    *,
    recipe: str | None = None,
    configs: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, tuple[KeyPath, Any]] | None = None,
) -> list[Layer]:
    """Everything that a command line gives: a shipped recipe, files, `--set` and flags, each over
    the one before.

    Raises `ConfigError`, if a part of it cannot be read, with the mistakes in the rest as well.
    """
    mistakes = Mistakes()
    layers: list[Layer] = []
    with mistakes.gathered():
        layers += read_all(recipe, configs)
    all_files_read = not mistakes  # the rest is only judged over all that is beneath it
    for assignment in assignments:
        with mistakes.gathered():
            layers += parse_assignments([assignment])
    layers += flag_layers(flags or {})
    if mistakes and all_files_read:
        with mistakes.gathered():
            resolve(layers)
    mistakes.check()
    return layers


def nested(path: KeyPath, value: Any) -> dict[str, Any]:
    """`{"optimizer": {"lr": 0.1}}` for `("optimizer", "lr")`."""
    *outer, last = path
    nested = {last: value}
    for key in reversed(outer):
        nested = {key: nested}
    return nested


# ---- resolving


def resolve(layers: Sequence[Layer]) -> Recipe:
    """Merge the layers over the defaults, fill in what follows, and check the whole.

    Raises `ConfigError` with every mistake at once.
    """
    plugins = load_plugins(layers)  # first: what they add may be named anywhere
    merged, origins = merge(layers)
    merged["plugins"] = plugins
    _downloads_on_request(merged, layers)
    try:
        checked = recipe_class().model_validate(merged)
    except ValidationError as error:
        raise ConfigError(*in_our_words(error, origins)) from None
    recipe = defaults.complete(checked, merged)
    problems = contradictions(recipe, origins)
    if problems:
        raise ConfigError(*problems)
    return recipe


def load_plugins(layers: Sequence[Layer]) -> list[str]:
    """Load the plugins of every layer: one more never makes another useless."""
    files: list[tuple[str, str]] = []
    for layer in layers:
        origin = layer.origin(("plugins",))
        files += [(path, origin) for path in _plugins_in(layer)]
    with trusting(files=code_named_in(layers)):
        return load_named_plugins(files)


def _plugins_in(layer: Layer) -> list[str]:
    return _strings("plugins", layer.values.get("plugins", []), layer.origin(("plugins",)))


def code_named_in(layers: Sequence[Layer]) -> list[Path | str]:
    """The files of code that the user's own layers name, as plugins, models of transfer attacks or
    networks to learn from, and weights that may have to be downloaded."""
    files: list[Path | str] = []
    for layer in layers:
        if layer.by_user:
            files += [NamedPlugin.parse(plugin).path for plugin in _plugins_in(layer)]
            files += model_files(layer.values.get("eval"))
            files += networks_named(layer.values)
    return files


def _downloads_on_request(merged: dict[str, Any], layers: Sequence[Layer]) -> None:
    """A file may ask for a download, but only the user, by flag or trust, starts one."""
    asked = [layer.by_user for layer in layers if "download" in _data_of(layer)]
    data = merged.get("data")
    if asked and not asked[-1] and not trust().everything and isinstance(data, dict):
        data["download"] = False


def _data_of(layer: Layer) -> Mapping[str, Any]:
    data = layer.values.get("data")
    return data if isinstance(data, Mapping) else {}


# ---- writing


def to_yaml(recipe: Recipe, header: str = "") -> str:
    """The whole resolved recipe as YAML that `--config` reads back to the same recipe."""
    body = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in header.splitlines()) + body
