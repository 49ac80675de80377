"""A user's own methods, attacks, models and data sets: from a file, or from an installed package.

A plugin enters what it has in the tables `METHODS`, `ATTACKS`, `MODELS` and `DATASETS`; from then
on its names are checked, explained and recorded as ours are. A package announces its plugin under
the entry-point group `rpat.plugins`.
"""

import traceback
from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import cloudpickle

from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.methods import METHODS
from rpat_cli.registry import import_file

GROUP = "rpat.plugins"
_loaded: dict[Path, ModuleType] = {}


def load_plugins(files: Iterable[tuple[str, str]]) -> list[str]:
    """Load the installed plugins and these files, each once per process; returns the files'
    absolute paths.

    `files` are paths and who asked for them. Raises `ConfigError`, naming file and line, for a
    plugin that cannot be imported or enters something that is not what its table holds.
    """
    load_installed()
    paths = {Path(file).expanduser().resolve(): source for file, source in files}
    for path, source in paths.items():
        if path not in _loaded:
            _loaded[path] = _load(path, source)
    return [str(path) for path in paths]


@cache
def load_installed() -> None:
    """Load the plugins that installed packages announce. Raises `ConfigError` naming the
    package."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise ConfigError(
                Problem(
                    point.name,
                    f"cannot be loaded: {_said(error)}.",
                    f"plugin of the package {package}",
                )
            ) from error


def _load(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(Problem("plugins", f"there is no plugin file {path}.", source))
    if path.suffix != ".py":
        raise ConfigError(
            Problem("plugins", f"{path} is not a Python file.", source, "Its name must end in .py.")
        )
    name = f"rpat_plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    known = set(METHODS), set(DATASETS)
    try:
        module = import_file(path, name)
        _check_entries(set(METHODS) - known[0], set(DATASETS) - known[1])
    except Exception as error:
        raise ConfigError(
            Problem("", f"the plugin failed: {_said(error)}", place_in(path, error))
        ) from error
    # Other processes cannot import the module by its name: what is made of its classes takes their
    # code along when it is sent there.
    cloudpickle.register_pickle_by_value(module)
    return module


def _check_entries(methods: set[str], datasets: set[str]) -> None:
    """Raise `TypeError` for an entry that would fail much later, far from the line that made it."""
    from rpat_cli.data.base import DatasetSpec
    from rpat_cli.methods.declare import Needs

    for name in sorted(methods):
        if not (
            isinstance(METHODS[name], type)
            and issubclass(METHODS[name], Needs)
            and is_dataclass(METHODS[name])
        ):
            raise TypeError(
                f"the method {name!r} must be a frozen dataclass that inherits from "
                "rpat_cli.methods.declare.Needs"
            )
    for name in sorted(datasets):
        if not isinstance(DATASETS[name], DatasetSpec):
            raise TypeError(f"the data set {name!r} must be a rpat_cli.data.base.DatasetSpec")


def _said(error: Exception) -> str:
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
