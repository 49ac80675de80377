"""A user's own methods, regularizers, attacks, models, data sets and diagnostics: from a file, or
from an installed package.

A plugin adds what it has to the tables `METHODS`, `REGULARIZERS`, `ATTACKS`, `MODELS`, `DATASETS`
and `DIAGNOSTICS`; from then on its names are checked, explained and recorded as ours are. A package
announces its plugin under the entry-point group `rpat.plugins`.
"""

import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from rpat_cli.attacks import ATTACKS
from rpat_cli.data import DATASETS
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic
from rpat_cli.diagnostics.base import EVALUATION_KEYS
from rpat_cli.errors import ConfigError, Problem, shortened
from rpat_cli.evaluation.suite import SUITES
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.files import is_file, user_path
from rpat_cli.registry import Registry, import_file
from rpat_cli.user_code import is_plugin_package

GROUP = "rpat.plugins"
_loaded: dict[Path, ModuleType] = {}


def load_plugins(files: Iterable[tuple[str, str]]) -> list[str]:
    """Load the installed plugins and these files, each once per process; returns the files'
    absolute paths.

    `files` are paths, each with the flag or file that names it. Raises `ConfigError`, naming file
    and line, for a plugin that cannot be imported, or that adds to a table what does not belong
    there.
    """
    load_installed()
    paths = {_resolved(file): source for file, source in files}
    for path, source in paths.items():
        if path not in _loaded:
            _loaded[path] = _load(path, source)
    return [str(path) for path in paths]


@cache
def load_installed() -> None:
    """Load the plugins that installed packages announce. Raises `ConfigError` naming the
    package."""
    for point in entry_points(group=GROUP):
        is_plugin_package(point.value)
        try:
            with redirect_stdout(sys.stderr):
                point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise ConfigError(
                Problem(
                    point.name,
                    f"cannot be loaded: {_message(error)}.",
                    f"plugin of the package {package}",
                )
            ) from error


def _resolved(file: str) -> Path:
    try:
        return user_path(file).resolve()
    except (OSError, ValueError):  # no path at all, such as one with a NUL: not found
        return user_path(file)


def _load(path: Path, source: str) -> ModuleType:
    if not is_file(path):
        message = f"there is no plugin file {shortened(str(path))}."
        raise ConfigError(Problem("plugins", message, source))
    if path.suffix != ".py":
        raise ConfigError(
            Problem("plugins", f"{path} is not a Python file.", source, "Its name must end in .py.")
        )
    name = f"rpat_plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    before = [set(table) for table, _ in CHECKS]
    try:
        module = import_file(path, name)
        for (table, check), known in zip(CHECKS, before, strict=True):
            for entry in sorted(set(table) - known):
                check(entry, table[entry])
    except Exception as error:
        raise ConfigError(
            Problem("", f"the plugin failed: {_message(error)}", place_in(path, error))
        ) from error
    return module


# An entry of the wrong kind would fail much later, far from the line that added it.


def _check_method(name: str, entry: Any) -> None:
    _check_part("method", name, entry)


def _check_regularizer(name: str, entry: Any) -> None:
    _check_part("regularizer", name, entry)
    if name in Recipe.model_fields:
        raise TypeError(
            f"the regularizer {name!r} has the name of a key of the recipe; choose another name"
        )


def _check_part(kind: str, name: str, entry: Any) -> None:
    from rpat_cli.methods.declare import Needs

    if not (isinstance(entry, type) and issubclass(entry, Needs) and is_dataclass(entry)):
        raise TypeError(
            f"the {kind} {name!r} must be a frozen dataclass that inherits from "
            "rpat_cli.methods.declare.Needs"
        )
    if not (isinstance(entry.views, int) and entry.views >= 1):
        raise TypeError(f"views of the {kind} {name!r} must be a number of at least 1")
    if not isinstance(entry.attack_defaults, Mapping):
        raise TypeError(
            f"attack_defaults of the {kind} {name!r} must be settings of an attack, as "
            "rpat_cli.methods.declare.attack_settings(start='gaussian') makes them"
        )


def _check_attack(name: str, row: Any) -> None:
    if not isinstance(row.build, str) and not callable(row.build):
        raise TypeError(f"the attack {name!r} must be a callable (threat, **settings) -> attack")
    if name in SUITES or re.search(r"[,:@+\s]", name):
        raise TypeError(f"the attack {name!r} cannot be written in a suite; choose another name")


def _check_data_set(name: str, entry: Any) -> None:
    from rpat_cli.data.base import DatasetSpec

    if not isinstance(entry, DatasetSpec):
        raise TypeError(f"the data set {name!r} must be a rpat_cli.data.base.DatasetSpec")


def _check_diagnostic(name: str, entry: Any) -> None:
    if not isinstance(entry, Diagnostic):
        raise TypeError(f"the diagnostic {name!r} must be a rpat_cli.diagnostics.Diagnostic")
    if (entry.measure is None) == (entry.prepare is None):
        raise TypeError(f"the diagnostic {name!r} must have either a measure or a prepare")
    if name in EVALUATION_KEYS:
        raise TypeError(
            f"the diagnostic {name!r} has the name of a key of the evaluation's JSON; choose "
            "another name"
        )


CHECKS: tuple[tuple[Registry[Any], Callable[[str, Any], None]], ...] = (
    (METHODS, _check_method),
    (REGULARIZERS, _check_regularizer),
    (ATTACKS, _check_attack),
    (DATASETS, _check_data_set),
    (DIAGNOSTICS, _check_diagnostic),
)


def _message(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, ConfigError | TypeError)
        else f"{type(error).__name__}: {error}"
    )


def place_in(path: Path, error: Exception) -> str:
    """The last line of the file itself that led to the error."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{path}:{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)
