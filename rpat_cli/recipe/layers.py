"""From files and flags to one checked `Recipe`, and back to YAML.

Layers, each overriding the one before: defaults < the data set's own defaults < `--recipe` <
`--config` files in order < `--set` < named flags; a file lies over those that it `extends`. Every
value remembers where it came from, so that all mistakes can be listed at once, each with its place,
what was given, and what is allowed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.evaluation.suite import Entry
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.schema import BadOptionsError, Recipe
from rpat_cli.recipe.shipped import find
from rpat_cli.text import show_number

Path_ = tuple[str, ...]  # where a value stands in the recipe: ("threat", "eps")

NAMED = ("data", "method", "schedule", "attack", "mix")
"""Sections that may be written as a bare name: `method: trades`."""

SWITCHED = ("ra", "consistency", "wa", "awp")
"""Sections that may be written as `true` or `false`."""


@dataclass
class Layer:
    """Nested recipe values with one origin; `lines` knows the line of each key where there is
    one."""

    source: str
    values: dict[str, Any]
    lines: dict[Path_, int] = field(default_factory=dict)

    def origin(self, path: Path_) -> str:
        line = self.lines.get(path)
        return f"{self.source}:{line}" if line else self.source


# ---- reading


def read_yaml(path: Path) -> Layer:
    """One recipe file. Raises `ConfigError` for what is missing, not YAML, not a mapping, or holds
    a key twice."""
    values, lines = read_document(path)
    if values is None:
        return Layer(str(path), {})
    if not isinstance(values, dict):
        raise ConfigError(
            Problem(
                "", "a recipe is a mapping of keys to values.", str(path), "Example: 'epochs: 30'."
            )
        )
    return Layer(str(path), values, lines)


def read_document(path: Path, kind: str = "recipe") -> tuple[Any, dict[Path_, int]]:
    """What stands in a YAML file, and the line of each key and of each item of a list (`("eval",
    "0")`).

    Raises `ConfigError` for a file that is missing, is not YAML, or holds a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")])
            if path.parent.is_dir()
            else ""
        )
        raise ConfigError(Problem("", f"there is no such {kind} file.", str(path), near)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Problem("", f"cannot be read: {error}.", str(path))) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error, path)) from None
    lines: dict[Path_, int] = {}
    twice = list(_walk(node, (), lines))
    if twice:
        raise ConfigError(
            *(Problem(".".join(key), "stands twice.", f"{path}:{line}") for key, line in twice)
        )
    return values, lines


def _not_yaml(error: yaml.YAMLError, path: Path) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem("", f"is not valid YAML: {' '.join(str(error).split())}", str(path))
    began = (
        f", {error.context} begun in line {error.context_mark.line + 1}"
        if error.context and error.context_mark
        else ""
    )
    return Problem(
        "", f"is not valid YAML: {error.problem}{began}.", f"{path}:{error.problem_mark.line + 1}"
    )


def _walk(node: Any, prefix: Path_, lines: dict[Path_, int]) -> Iterable[tuple[Path_, int]]:
    """Note the line of every key and item below `node`; yield keys that stand twice (PyYAML would
    drop the first)."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            path = (*prefix, str(index))
            lines[path] = item.start_mark.line + 1
            yield from _walk(item, path, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        path, line = (*prefix, str(key.value)), key.start_mark.line + 1
        if key.value in seen:
            yield path, line
        seen.add(key.value)
        lines[path] = line
        yield from _walk(value, path, lines)


def read_recipe(path: Path) -> list[Layer]:
    """The layers of a recipe file: of everything it `extends`, then its own. A file that is reached
    twice counts once.

    `extends` holds one reference or a list: the name of a shipped recipe, or a path ending in
    .yaml, relative to the file. Raises `ConfigError` for what `read_yaml` does, for unknown names,
    and for files that extend one another.
    """
    layers: dict[Path, Layer] = {}
    _collect(path, (), layers)
    return list(layers.values())


def _collect(path: Path, below: tuple[Path, ...], layers: dict[Path, Layer]) -> None:
    here = path.resolve()
    if here in below:
        circle = " -> ".join(step.name for step in (*below[below.index(here) :], here))
        raise ConfigError(
            Problem("extends", f"the files extend one another: {circle}.", str(below[-1]))
        )
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
        plugins = _strings("plugins", layer.values["plugins"], layer.origin(("plugins",)))
        layer.values["plugins"] = [str(path.parent / plugin) for plugin in plugins]
    layers[here] = layer


def _strings(key: str, value: Any, source: str) -> list[str]:
    """One text or a list of them. Raises `ConfigError` for anything else."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
        raise ConfigError(
            Problem(key, f"{value!r}: should be one name or a list of names.", source)
        )
    return list(values)


def read_all(recipe: str | None = None, configs: Sequence[Path] = ()) -> list[Layer]:
    """The layers of a shipped recipe, if one is named, and of the recipe files laid over it, in
    order."""
    files = [*([find(recipe)] if recipe is not None else []), *configs]
    return [layer for file in files for layer in read_recipe(file)]


def parse_assignments(assignments: Sequence[str]) -> list[Layer]:
    """`["optimizer.lr=0.05"]` from `--set`, one layer each; values are read as YAML.

    Raises `ConfigError` with every assignment that is not of the form key=value.
    """
    layers, problems = [], []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            problems.append(
                Problem(
                    "",
                    f"{text!r} is not of the form key=value.",
                    "--set",
                    "Example: optimizer.lr=0.05",
                )
            )
            continue
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        layers.append(Layer(f"--set {text}", _nested(tuple(key.strip().split(".")), parsed)))
    if problems:
        raise ConfigError(*problems)
    return layers


def flag_layers(flags: Mapping[str, tuple[Path_, Any]]) -> list[Layer]:
    """One layer for each flag that was given: `{"--beta": (("method", "beta"), "3")}`."""
    return [
        Layer(flag, _nested(path, value))
        for flag, (path, value) in flags.items()
        if value is not None
    ]


def _nested(path: Path_, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]


# ---- merging


def _normal(key: str, value: Any) -> Any:
    """The long form of what may be written short."""
    if key in NAMED and isinstance(value, str):
        return {"name": value}
    return {} if key in SWITCHED and value is True else value


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    layer: Layer,
    origins: dict[Path_, str],
    prefix: Path_ = (),
) -> None:
    for key, value in values.items():
        path = (*prefix, str(key))
        origins[path] = layer.origin(path)
        if not isinstance(value, Mapping):
            if isinstance(value, list) or isinstance(into.get(key), list):
                _note_items(path, value, layer, origins)
            into[key] = value
            continue
        old = into.get(key)
        into[key] = (
            dict(old) if isinstance(old, Mapping) and not _replaces(path, old, value) else {}
        )
        _merge(into[key], value, layer, origins, path)


def _note_items(path: Path_, value: Any, layer: Layer, origins: dict[Path_, str]) -> None:
    """The items of a list come from where the list does; whatever stood at `path` before is
    gone."""
    for stale in [
        other for other in origins if len(other) > len(path) and other[: len(path)] == path
    ]:
        del origins[stale]
    for index in range(len(value) if isinstance(value, list) else 0):
        item = (*path, str(index))
        origins[item] = layer.origin(item) if item in layer.lines else layer.origin(path)


def _replaces(path: Path_, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """With another method or schedule, the hyper-parameters of the former one mean nothing any
    more."""
    return path in (("method",), ("schedule",)) and "name" in new and new["name"] != old.get("name")


def _dataset_layer(given: Mapping[str, Any]) -> list[Layer]:
    """The data set's own defaults, as far as data set and norm are known to be right."""
    from rpat_cli.attacks.threat import DEFAULT_EPS

    data = given.get("data", {})
    name = data.get("name", Recipe.model_fields["data"].get_default(call_default_factory=True).name)
    if name not in DATASETS:
        return []
    spec = DATASETS[name]
    threat = given.get("threat", {})
    norm = threat.get("norm", "Linf") if isinstance(threat, dict) else "Linf"
    eps = {**DEFAULT_EPS, **spec.eps}.get(norm)
    source = f"defaults of {name}"
    return [Layer(source, dict(spec.defaults))] + (
        [Layer(source, {"threat": {"eps": eps}})] if eps else []
    )


def resolve(layers: Sequence[Layer]) -> Recipe:
    """Merge the layers over the defaults and check the whole. Raises `ConfigError` with every
    mistake at once."""
    names = Layer(
        "default", {key: Recipe.model_fields[key].default for key in ("method", "schedule")}
    )
    plugins = _load_plugins(layers)  # first: what they add may be named anywhere
    given, _ = _merged(layers)
    merged, origins = _merged([names, *_dataset_layer(given), *layers])
    merged["plugins"] = plugins
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(*_problems(error, origins)) from None


def _load_plugins(layers: Sequence[Layer]) -> list[str]:
    """Every layer's plugins, since one more never makes another useless."""
    return load_plugins(
        (path, layer.origin(("plugins",)))
        for layer in layers
        for path in _strings("plugins", layer.values.get("plugins", []), layer.origin(("plugins",)))
    )


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[Path_, str]]:
    merged: dict[str, Any] = {}
    origins: dict[Path_, str] = {}
    for layer in layers:
        _merge(
            merged,
            {key: _normal(key, value) for key, value in layer.values.items()},
            layer,
            origins,
        )
    return merged, origins


def layers_of(
    *,
    recipe: str | None = None,
    configs: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, tuple[Path_, Any]] | None = None,
) -> list[Layer]:
    """All that a command line gives: a shipped recipe, files, `--set` and flags, each over the one
    before."""
    return [*read_all(recipe, configs), *parse_assignments(assignments), *flag_layers(flags or {})]


# ---- mistakes


def _problems(
    error: ValidationError,
    origins: Mapping[Path_, str],
    prefix: Path_ = (),
    allowed: Sequence[str] | None = None,
    given: Any = None,
) -> list[Problem]:
    """Pydantic's errors in our words. `allowed` are the keys at `prefix`, where pydantic cannot
    know them.

    `given` is then what stands there, with the name of what takes those keys.
    """
    problems: list[Problem] = []
    for item in error.errors():
        path = (*prefix, *(str(part) for part in item["loc"]))
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, BadOptionsError):
            problems += _problems(inner.error, origins, path, inner.allowed, item["input"])
        elif item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            keys = _keys_at(path[:-1]) if allowed is None else allowed
            problems.append(_unknown_key(path, origins, keys, given))
        else:
            message = str(inner) if inner is not None else item["msg"]
            problems.append(
                Problem(".".join(path), _with_input(message, item["input"]), _origin(path, origins))
            )
    return problems


def _unknown_key(
    path: Path_, origins: Mapping[Path_, str], allowed: Sequence[str], given: Any
) -> Problem:
    name = f" {given['name']!r}" if isinstance(given, Mapping) and "name" in given else ""
    hint = (
        f"Allowed: {', '.join(allowed)}." if allowed else f"The {path[-2]}{name} takes no settings."
    )
    near = did_you_mean(path[-1], allowed)
    return Problem(".".join(path), "unknown key.", _origin(path, origins), f"{near} {hint}".strip())


def _origin(path: Path_, origins: Mapping[Path_, str]) -> str:
    """Where the value at `path`, or else the nearest thing above it, came from."""
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), "")


def _with_input(message: str, value: Any) -> str:
    message = message[:1].lower() + message[1:].replace("Input should", "should")
    message = message.removeprefix("input ").partition(", unable to parse")[0]
    message = re.sub("a valid dictionary or instance of .*", "a mapping of keys to values", message)
    if isinstance(value, dict | BaseModel) or repr(value) in message:
        return message
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else f'{shown[:57]}...'}: {message}"


def _keys_at(path: Path_) -> list[str]:
    """The keys of the recipe itself, or of one of its sections."""
    section: Any = Recipe
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


# ---- writing


def to_yaml(recipe: Recipe, header: str = "") -> str:
    """The whole resolved recipe as YAML that `--config` reads back to the same recipe."""
    body = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in header.splitlines()) + body


def summary(recipe: Recipe) -> dict[str, str]:
    """The recipe in a few lines for the screen: label -> text."""
    attack, threat = recipe.attack, recipe.threat
    extras = [name for name in SWITCHED if getattr(recipe, name)]
    described = [f"{name} ({_options(getattr(recipe, name))})" for name in extras]
    method = recipe.method.name + (
        f" ({_options(recipe.method.options)})" if recipe.method.options else ""
    )
    return {
        "data": " + ".join(_data_parts(recipe)),
        "model": recipe.model,
        "method": " + ".join([method, *described]),
        "threat": f"{threat.norm}, eps {show_number(threat.eps)}",
        "attack": (
            f"{attack.name}, {attack.steps} steps of {show_number(attack.step_size or 0)}, "
            f"{attack.start} start"
        ),
        "training": (
            f"{recipe.epochs} epochs of batch {recipe.batch_size}, lr "
            f"{show_number(recipe.optimizer.lr)} {recipe.schedule.name}, seed {recipe.seed}"
        ),
        "report": ", ".join(str(Entry(entry, "")) for entry in recipe.eval),
    }


def _data_parts(recipe: Recipe) -> list[str]:
    extra, later = recipe.data.extra, recipe.data.augment_from
    return [
        recipe.data.name,
        *([f"{extra.share:.0%} of {Path(extra.path).name}"] if extra.path else []),
        *map(_augment, recipe.data.augment),
        *(
            [f"from epoch {later.epoch} {', '.join(map(_augment, later.augment))}"]
            if later.epoch is not None
            else []
        ),
        *([recipe.mix.name] if recipe.mix else []),
        *(
            [f"label smoothing {show_number(recipe.label_smoothing)}"]
            if recipe.label_smoothing
            else []
        ),
    ]


def _augment(spec: str | Mapping[str, Any]) -> str:
    return spec if isinstance(spec, str) else ", ".join(spec)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {show_number(value) if isinstance(value, float) else value}"
        for key, value in options.items()
        if value is not None
    )
