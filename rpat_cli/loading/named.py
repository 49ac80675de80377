"""From what people type to the run that they mean."""

from collections.abc import Iterable
from pathlib import Path

from rpat_cli.errors import ConfigError, RpatError, RunFolderError
from rpat_cli.recipe.layers import read_all, read_yaml, resolve
from rpat_cli.recipe.shipped import recipe_names
from rpat_cli.records.files import is_file, user_path
from rpat_cli.records.metrics import best_record, rank, read_metrics
from rpat_cli.records.run_folder import RUNS, RunFolder, begun, is_run, newest_run, open_run

NEWEST, BEST = "last", "best"
"""Words for runs under `runs/`: see `newest_run` and `best_run`."""


def find_run(text: str | Path) -> RunFolder:
    """A run by its folder, by its name under `runs/`, or by "last", the one begun last, or
    "best", as in `best_run`.

    Raises `RunFolderError`, naming near ones, and `ConfigError` for what can be no path.
    """
    return open_run(run_or_path(text))


def run_or_path(text: str | Path) -> Path:
    """The folder of a run that is named as in `find_run`; any other path as it is, for whoever
    takes files as well. Raises `RunFolderError` for "last" without any run."""
    path = user_path(text)
    if path.exists():
        return path
    if is_run(RUNS / path):  # also one that is called as a word is
        return RUNS / path
    if str(text) == NEWEST:
        return newest_run().path
    if str(text) == BEST:
        return best_run().path
    return path


def best_run() -> RunFolder:
    """The run under `runs/` with the best epoch on validation images, among those of the newest
    run's data set and threat model: others cannot be compared with it.

    Raises `RunFolderError` where none of them has been validated.
    """
    newest = newest_run()
    task = _task(newest)
    found = []
    for path in RUNS.iterdir():
        record = best_record(read_metrics(path / "metrics.jsonl")) if is_run(path) else None
        if record is not None and _task(RunFolder(path)) == task:
            found.append((rank(record["validation"]), begun(path), path))
    if not found:
        raise RunFolderError(
            f"no run on the data and threat model of {newest.path} has been validated yet: name a "
            "run, or last for the newest one."
        )
    return RunFolder(max(found)[2])


def _task(run: RunFolder) -> tuple[object, object]:
    """What runs must have in common to be compared: data set and threat model. A folder of images
    is told by its place and the form of its images."""
    try:
        values = read_yaml(run.recipe).values
    except ConfigError:  # a damaged recipe is like no other
        return run.path, None
    data = values.get("data")
    if not isinstance(data, dict):
        return data, values.get("threat")
    of_folder = ("root", "image_size", "channels") if data.get("name") == "imagefolder" else ()
    return [data.get(key) for key in ("name", *of_folder)], values.get("threat")


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
