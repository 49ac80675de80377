"""The axes of a sweep file: their combinations, and what is wrong with them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.recipe.layers import Layer
from rpat_cli.sweep.labels import shown_settings
from rpat_cli.sweep.spec import MOST_TRIALS, Axes, SweepSpec
from rpat_cli.sweep.sweep_file import EXAMPLES

UNTRAINED = ("eval",)
"""Recipe keys that a trained model does not depend on: when one of them changes, a finished trial
is evaluated again, not trained again."""


def combinations_of(spec: SweepSpec) -> Iterator[Axes]:
    """list x zip x grid x random, the last going fastest; nothing is excluded yet.

    Raises `ConfigError` for more than `MOST_TRIALS`.
    """
    factors: list[list[Axes]] = []
    if spec.rows:
        factors.append(spec.rows)
    if spec.zip:
        factors.append(_zipped(spec.zip))
    for key, values in spec.grid.items():
        factors.append([{key: value} for value in values])
    if spec.random:
        factors.append(spec.random.draw())
    count = math.prod(map(len, factors)) * len(spec.seeds)
    if count > MOST_TRIALS:
        raise ConfigError(
            f"the axes and seeds make {_rounded(count)} trials; a sweep has at most "
            f"{MOST_TRIALS:,}. Draw some of the combinations with random."
        )
    for parts in itertools.product(*factors):
        combination: Axes = {}
        for part in parts:
            combination |= part
        yield combination


def _rounded(count: int) -> str:
    """A whole number that may have hundreds of digits."""
    return f"{count:,}" if count < 10**12 else f"about 10^{math.floor(math.log10(count))}"


def _zipped(axes: Mapping[str, Sequence[Any]]) -> list[Axes]:
    """First values with first values, second with second."""
    rows = zip(*axes.values(), strict=True)
    return [dict(zip(axes, row, strict=True)) for row in rows]


def samples_of(spec: SweepSpec) -> list[Axes]:
    """Combinations that hold each choice, and both ends, of all axes that Optuna chooses from."""
    assert spec.search
    assert spec.search.optuna
    axes = spec.search.optuna.axes
    values = {key: axis.choice or axis.extremes for key, axis in axes.items()}
    combinations: list[Axes] = [{} for _ in range(max(map(len, values.values())))]
    for number, combination in enumerate(combinations):
        for key, each in values.items():
            combination[key] = each[number % len(each)]
    return combinations


def is_excluded(spec: SweepSpec, axes: Axes) -> bool:
    return any(_matches(axes, pattern) for pattern in spec.exclude)


def _matches(axes: Axes, pattern: Axes) -> bool:
    return all(key in axes and axes[key] == value for key, value in pattern.items())


def line_of(key: str, layer: Layer) -> int:
    """The line of an axis in the sweep file; 0 if it has none."""
    places = [
        ("grid", key),
        ("zip", key),
        ("random", "axes", key),
        ("search", "optuna", "axes", key),
        ("list",),
    ]
    return next((layer.lines[place] for place in places if place in layer.lines), 0)


def axis_problems(spec: SweepSpec, combinations: Sequence[Axes], layer: Layer) -> Iterator[Problem]:
    """All mistakes in the axes, and in the sections that refer to them."""
    known = keys_of(spec)
    yield from _impossible_axes(spec, known, layer)
    if "seed" in spec.recipe:
        message = "has no effect: the seeds of all trials are listed under seeds:."
        yield Problem("recipe.seed", message, layer.origin(("recipe", "seed")), EXAMPLES["seeds"])
    for pattern in spec.exclude:
        yield from _unknown_axes("exclude", pattern, known, layer)
    yield from _unknown_axes("baseline", spec.baseline or {}, known, layer)
    yield from _exclude_problems(spec, combinations, layer)


def keys_of(spec: SweepSpec) -> list[str]:
    """The keys of all axes, each once, in the order of the sections."""
    keys = [*spec.grid, *spec.zip]
    if spec.random:
        keys += spec.random.axes
    if spec.search and spec.search.optuna:
        keys += spec.search.optuna.axes
    for row in spec.rows:
        keys += row
    return list(dict.fromkeys(keys))


def _impossible_axes(spec: SweepSpec, known: Sequence[str], layer: Layer) -> Iterator[Problem]:
    """Recipe keys that cannot be an axis."""
    for key in known:
        origin = f"{layer.source}:{line_of(key, layer)}"
        # A row of `list` may set it next to keys that do change the training.
        is_in_rows = any(key in row for row in spec.rows)
        if key == "seed":
            message = "cannot be an axis: the seeds of all trials are listed under seeds:."
            yield Problem(key, message, origin, EXAMPLES["seeds"])
        elif key in UNTRAINED and not is_in_rows:
            message = "cannot be an axis: all of its values would train the same model."
            hint = "List all attacks under eval: at the top; each has its column in the table."
            yield Problem(key, message, origin, hint)


def _unknown_axes(
    section: str, pattern: Axes, known: Sequence[str], layer: Layer
) -> Iterator[Problem]:
    """Keys of `exclude` or `baseline` that are not an axis."""
    for key in pattern:
        if key not in known:
            axes = f"The axes are: {', '.join(known) or 'none'}."
            hint = f"{did_you_mean(key, known)} {axes}".strip()
            message = "is not an axis of this sweep."
            yield Problem(f"{section}.{key}", message, layer.origin((section,)), hint)


def _exclude_problems(
    spec: SweepSpec, combinations: Sequence[Axes], layer: Layer
) -> Iterator[Problem]:
    """`exclude` leaves nothing, or one of its patterns excludes nothing."""
    if combinations and all(is_excluded(spec, axes) for axes in combinations):
        message = "excludes every combination."
        yield Problem("exclude", message, layer.origin(("exclude",)))
    known: set[str] = set()
    for axes in combinations:
        known |= axes.keys()
    if spec.random:  # what is drawn at random may miss a pattern by chance
        known -= spec.random.axes.keys()
    for number, pattern in enumerate(spec.exclude):
        if pattern.keys() <= known and not any(_matches(axes, pattern) for axes in combinations):
            message = f"excludes nothing: no combination has {shown_settings(pattern)}."
            origin = layer.origin(("exclude", str(number)))
            hint = "Write the values exactly as in the axes."
            yield Problem(f"exclude.{number}", message, origin, hint)
