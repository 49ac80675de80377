"""From a sweep file to its spec: finding it, reading it, and every mistake in it at once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from rpat_cli.errors import ConfigError, Problem, did_you_mean, shortened
from rpat_cli.recipe.components import Strict
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.mistakes import MOST
from rpat_cli.recipe.shipped import SHIPPED_SWEEPS
from rpat_cli.recipe.yaml_lines import read_document
from rpat_cli.records.files import is_file
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.engines.base import EngineSection
from rpat_cli.sweep.spec import SweepSpec

SHIPPED = SHIPPED_SWEEPS


def find_sweep(name: str) -> Path:
    """The path of a sweep file, or of a shipped sweep by its name. Raises `ConfigError` that lists
    the names."""
    if is_file(Path(name)):
        return Path(name)
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    near = [*shipped, *(str(path) for path in Path(name).parent.glob("*.y*ml"))]
    hint = f"{did_you_mean(name, near)} Shipped sweeps: {', '.join(shipped)}.".strip()
    raise ConfigError(Problem("", f"there is no sweep file {shortened(name)!r}.", hint=hint))


def read_sweep(path: Path) -> tuple[SweepSpec, Layer]:
    """The sweep that a file describes, and the file as a layer that knows its line numbers.

    Raises `ConfigError` with every mistake in the file's own keys; `expand` finds those in the
    recipes.
    """
    spec, layer, problems = check_sweep(path)
    if problems:
        raise sweep_error(problems)
    return spec, layer


def check_sweep(path: Path) -> tuple[SweepSpec, Layer, list[Problem]]:
    """Like `read_sweep`, but return the valid part of the file and its mistakes, so that those in
    the recipes can be reported together with them.

    Raises `ConfigError` if nothing in the file is usable.
    """
    try:
        values, lines = read_document(path, "sweep")
    except ConfigError as error:
        raise sweep_error(error.problems) from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        message, example = "a sweep is a mapping of keys to values.", EXAMPLES["grid"]
        raise ConfigError(Problem("", message, str(path), example))
    layer = Layer(str(path), values, lines)
    problems: list[Problem] = []
    while True:  # each round leaves out the top-level keys that were wrong in the one before
        try:
            return SweepSpec.model_validate(values), layer, problems
        except ValidationError as error:
            found = error.errors()[:MOST]
            problems += [_problem(dict(item), layer) for item in found]
            wrong = values.keys() & {item["loc"][0] for item in found if item["loc"]}
            # A rule over several keys, such as the lengths under zip; or more than can be read.
            if not wrong or len(problems) >= MOST:
                raise sweep_error(problems) from None
            values = {key: value for key, value in values.items() if key not in wrong}


def sweep_error(problems: Sequence[Problem]) -> ConfigError:
    """All mistakes as one error."""
    title = f"{len(problems)} mistakes in the sweep" if len(problems) > 1 else ""
    return ConfigError(*problems, title=title)


SHAPES = {
    "dict_type": "must be a mapping of keys to values.",
    "model_type": "must be a mapping of keys to values.",
    "model_attributes_type": "must be a mapping of keys to values.",
    "list_type": "must be a list.",
    "too_short": "must not be empty.",
    "missing": "is missing.",
}
"""Our messages for values of the wrong type, by pydantic's error type; each gets an example."""

EXAMPLES = {
    "config": "Example: config: [quickstart, mine.yaml].",
    "recipe": "Example: recipe: {epochs: 10}. Recipe names and files go under config:.",
    "grid": "Example: grid: {method: [pgd, trades], ra: [false, true]}.",
    "zip": "Example: zip: {model: [small-cnn, vgg16], batch_size: [50, 128]}.",
    "list": "Example: list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}].",
    "random": "Example: random: {samples: 20, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}.",
    "exclude": "Example: exclude: [{method: trades, ra: true}].",
    "seeds": "Example: seeds: 3, or seeds: [0, 1, 5].",
    "order": "Example: order: seeds.",
    "baseline": "Example: baseline: {ra: false}.",
    "search": "Example: search: {asha: {min_epochs: 2, factor: 3}}.",
}


def _problem(item: Mapping[str, Any], layer: Layer) -> Problem:
    """One of pydantic's errors in our words."""
    place = tuple(str(part) for part in item["loc"])
    # Behind "engine" pydantic inserts the engine's name, which is no key of the file.
    path = place[:1] + place[2:] if place[:1] == ("engine",) else place
    key, source = ".".join(path), _origin(path, layer)
    if item["type"] == "extra_forbidden":
        return Problem(key, "unknown key.", source, _allowed_keys(place))
    if item["type"] in SHAPES:
        return Problem(key, SHAPES[item["type"]], source, EXAMPLES.get(place[0], ""))
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
    message = message.removesuffix(".")
    return Problem(key, f"{message[:1].lower()}{message[1:]}.", source)


def _origin(path: Sequence[str], layer: Layer) -> str:
    """The file and line of a key, or of the nearest section around it that has a line."""
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in layer.lines:
            return layer.origin(tuple(path[:length]))
    return layer.source


def _allowed_keys(place: Sequence[str]) -> str:
    """The hint for an unknown key at pydantic's `place`."""
    fields = _section_at(place[:-1]).model_fields
    allowed = [field.alias or name for name, field in fields.items()]
    return f"{did_you_mean(place[-1], allowed)} Allowed: {', '.join(allowed)}.".strip()


def _section_at(path: Sequence[str]) -> type[Strict]:
    """The section of the sweep file that the keys of `path` lead to."""
    section: type[Strict] = SweepSpec
    for part in path:
        if part in section.model_fields:  # otherwise an axis, whose name is free
            section = next(_sections_in(section.model_fields[part].annotation), section)
        elif issubclass(section, EngineSection):
            section = ENGINES[part]
    return section


def _sections_in(annotation: Any) -> Iterator[type[Strict]]:
    """The sections in a type such as `dict[str, Draw] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
