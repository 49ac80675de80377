"""From what people type to the run that they mean."""

from collections.abc import Iterable
from pathlib import Path

from rpat_cli.errors import ConfigError, RpatError, RunFolderError
from rpat_cli.recipe.layers import read_all, read_yaml, resolve
from rpat_cli.recipe.shipped import recipe_names
from rpat_cli.records.files import is_file, user_path
from rpat_cli.records.run_folder import RUNS, RunFolder, is_run, newest_run, open_run

NEWEST = "last"


def find_run(text: str | Path) -> RunFolder:
    """A run by its folder, by its name under `runs/`, or by "last", the one begun last.

    Raises `RunFolderError`, naming near ones, and `ConfigError` for what can be no path.
    """
    return open_run(run_or_path(text))


def run_or_path(text: str | Path) -> Path:
    """The folder of a run that is named as in `find_run`; any other path as it is, for whoever
    takes files as well. Raises `RunFolderError` for "last" without any run."""
    path = user_path(text)
    if path.exists():
        return path
    if str(text) == NEWEST:
        return newest_run().path
    return RUNS / path if is_run(RUNS / path) else path


def find_runs(texts: Iterable[str | Path]) -> list[RunFolder]:
    """Several, each once. Raises `RunFolderError` that lists every one that there is not."""
    found: dict[Path, RunFolder] = {}
    errors: list[RpatError] = []
    for text in texts:
        try:
            folder = find_run(text)
        except (RunFolderError, ConfigError) as error:
            errors.append(error)
        else:
            found.setdefault(folder.path.resolve(), folder)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RunFolderError("\n  ".join(["these runs were not found:", *map(str, errors)]))
    return list(found.values())


def recipe_of(text: str) -> dict[str, object]:
    """The plain values of a recipe, with all keys: of a run, a recipe file, or a shipped recipe.

    That of a run is read as it is on disk, so that no code which it names is run; a file is
    resolved. Raises `ConfigError` and `RunFolderError`.
    """
    path = user_path(text)
    if text in recipe_names() and not path.exists():
        return resolve(read_all(text)).model_dump(mode="json")
    if is_file(path):
        return resolve(read_all(None, [path])).model_dump(mode="json")
    return read_yaml(find_run(text).recipe).values
