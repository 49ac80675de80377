"""What `rpat sweep --set KEY=VALUE` must not do: change nothing, or overwrite another table."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.recipe.layers import Layer, load_plugins, nested, parse_assignments
from rpat_cli.recipe.merging import merge
from rpat_cli.recipe.yaml_lines import KeyPath
from rpat_cli.records.regular import read_regular
from rpat_cli.reports.saved_report import DAMAGE

Layers = tuple[Sequence[Layer], Sequence[Layer]]
"""The layers of one combination: those below its axes, and the axes."""

_MISSING = object()


def hidden_assignments(
    assignments: Sequence[str],
    axes: Sequence[str],
    combinations: Sequence[Layers],
    *,
    loaded: bool,
) -> Iterator[Problem]:
    """The assignments that every combination overrides, in whole or in part, and the seed.

    `axes`: the keys of all axes. `loaded`: the plugins of the combinations are, which may add keys;
    otherwise they are loaded here. Raises `ConfigError` for those that cannot be.
    """
    if not loaded:
        for below, above in combinations:
            load_plugins([*below, *above])
    for layer in parse_assignments(assignments):
        key = layer.source.removeprefix("--set ").partition("=")[0].strip()
        if key == "seed":
            message = "has no effect: the seeds of all trials are listed under seeds:."
            yield Problem(key, message, layer.source, "Change them in a copy of the sweep file.")
            continue
        for path in _leaves(layer):
            if not combinations or any(_outlasts(path, *each) for each in combinations):
                continue
            reason = f"the axes of this sweep replace {'.'.join(path)}."
            message = f"has no effect: {'it is an axis of this sweep.' if key in axes else reason}"
            yield Problem(key, message, layer.source, "Change it in a copy of the sweep file.")


def _leaves(layer: Layer) -> list[KeyPath]:
    """The paths of the values that the layer sets."""
    values, origins = merge([layer])
    own = [path for path, origin in origins.items() if origin == layer.source]
    found = {path: _value(values, path) for path in own}
    return [
        path
        for path, value in found.items()
        if value is not _MISSING and not (isinstance(value, Mapping) and value)
    ]


def _value(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values.get(part, _MISSING) if isinstance(values, Mapping) else _MISSING
    return values


def _outlasts(path: KeyPath, below: Sequence[Layer], axes: Sequence[Layer]) -> bool:
    """Whether a value at this path is still there under the axes."""
    # No name, number or truth value: nothing can be equal to it, or follow from it.
    mark = object()
    values, _ = merge([*below, Layer("", nested(path, mark)), *axes])
    return _value(values, path) is mark


def check_folder(folder: Path, assignments: Sequence[str]) -> None:
    """Raise `ConfigError` if the table in the folder is of other assignments: it would be lost.

    A table without any is of the time before there were assignments; one that cannot be read says
    nothing.
    """
    path = folder / "table.json"
    try:
        earlier = [str(text) for text in json.loads(read_regular(path)).get("assignments", [])]
    except DAMAGE:
        return
    if earlier != list(assignments):
        sets = " ".join(f"--set {shlex.quote(text)}" for text in earlier)
        message = f"the table there is of the sweep with {sets or 'no --set'}; it would be lost."
        again = f"repeat {sets}" if sets else "leave out --set"
        hint = f"Name another --out, or {again}, to go on with that one."
        raise ConfigError(Problem("", message, str(path), hint))
