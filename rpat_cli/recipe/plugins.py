"""A user's own methods, regularizers, attacks, models, data sets and diagnostics: from a file, or
from an installed package.

A plugin adds what it has to the tables `METHODS`, `REGULARIZERS`, `ATTACKS`, `MODELS`, `DATASETS`
and `DIAGNOSTICS`; from then on its names are checked, explained and recorded as ours are. A package
announces its plugin under the entry-point group `rpat.plugins`.
"""

import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stdout
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from types import ModuleType

from rpat_cli.errors import MAX_LISTED, ConfigError, Problem
from rpat_cli.recipe.plugin_checks import CHECKS
from rpat_cli.recipe.plugin_files import NamedPlugin, checksum_of, keep
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import trust, untrusted
from rpat_cli.records.files import user_path
from rpat_cli.records.regular import read_regular
from rpat_cli.registry import import_file
from rpat_cli.user_code import is_plugin_package

GROUP = "rpat.plugins"
_loaded: dict[Path, ModuleType] = {}
_contents: dict[Path, bytes] = {}
"""Of each loaded plugin: what was in the file then."""


def load_plugins(files: Iterable[tuple[str, str]]) -> list[str]:
    """Load the installed plugins and these files, each once per process; returns the files'
    absolute paths. Whoever calls this answers for the files (`rpat_cli.recipe.trust`).

    `files` are paths, each with the flag or file that names it. Raises `ConfigError`, naming file
    and line, for a plugin that cannot be imported, or that adds to a table what does not belong
    there.
    """
    load_installed()
    paths = {user_path(file, "plugins", source).resolve(): source for file, source in files}
    for path, source in paths.items():
        if path not in _loaded:
            _loaded[path] = _load(path, source)
    return [str(path) for path in paths]


def load_named_plugins(named: Iterable[tuple[str, str]]) -> list[str]:
    """The same for plugins that files name, each with the place where it does, or that the user
    names, who is trusted already then.

    A plugin that is loaded already, or that the user has named by another path, is the same one:
    by its checksum or, of those that the user has named, by its file's name. Raises `ConfigError`
    for files that nobody has answered for, for all of them at once, and none is run then.
    """
    problems: list[Problem] = []
    files: list[tuple[str, str]] = []
    for text, source in named:
        plugin = NamedPlugin.parse(text, source)
        path = _at_hand(plugin) or plugin.path.resolve()
        if path not in _loaded and (problem := _objection(path, plugin.checksum, source)):
            problems.append(problem)
        files.append((str(path), source))
        if len(problems) > MAX_LISTED:
            break
    if problems:
        title = "code that you have not answered for" if len(problems) > 1 else ""
        raise ConfigError(*problems, title=title)
    return load_plugins(files)


def _at_hand(plugin: NamedPlugin) -> Path | None:
    """The file that is meant, if it is loaded or the user has named it."""
    path = plugin.path.resolve()
    named = [file for file in sorted(trust().files) if file.suffix == ".py" and file.is_file()]
    if path in _loaded or path in named:
        return path
    contents = {file: read_regular(file) for file in named}
    contents |= {file: _contents[file] for file in _loaded if file in _contents}
    checksum = plugin.checksum
    if not checksum and path.is_file():
        checksum = checksum_of(read_regular(path))
    same = (file for file, content in contents.items() if checksum_of(content) == checksum)
    namesakes = (file for file in named if file.name == path.name)
    return next(chain(same, namesakes), None)


def _objection(path: Path, checksum: str, source: str) -> Problem | None:
    """Why the file that `source` names is not run."""
    if not trust().allows(path):
        return untrusted(path, source, key="plugins", flag="--plugin")
    if path in trust().files or not checksum or not path.is_file():
        return None
    if checksum_of(read_regular(path)) != checksum:
        message = f"{path} is not the file that was used: its checksum differs."
        hint = "If it is the one that you want, name it with --plugin FILE."
        return Problem("plugins", message, source, hint)
    return None


def kept_plugins(recipe: Recipe, folder: Path) -> list[str]:
    """Copy the plugins of a recipe into a run folder; returns how a recipe there names them.

    Raises `RunFolderError`.
    """
    paths = [Path(plugin) for plugin in recipe.plugins]
    return [str(keep(path, _contents[path], folder)) for path in paths]


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


def _load(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        message = f"there is no plugin file {path}."
        raise ConfigError(Problem("plugins", message, source))
    if path.suffix != ".py":
        raise ConfigError(
            Problem("plugins", f"{path} is not a Python file.", source, "Its name must end in .py.")
        )
    name = f"rpat_plugin_{path.stem}_{sha256(os.fsencode(path)).hexdigest()[:8]}"
    before = [set(table) for table, _ in CHECKS]
    try:
        _contents[path] = read_regular(path)
        module = import_file(path, name)
        for (table, check), known in zip(CHECKS, before, strict=True):
            for entry in sorted(set(table) - known):
                check(entry, table[entry])
    except Exception as error:
        raise ConfigError(
            Problem("", f"the plugin failed: {_message(error)}", place_in(path, error))
        ) from error
    return module


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
