"""Are the trained networks that a recipe names there? Said before anything begins, and without
reading them."""

from collections.abc import Iterator
from pathlib import Path

from rpat_cli.errors import ConfigError, Problem, RpatError, RunFolderError
from rpat_cli.loading.load import split_key
from rpat_cli.loading.robustbench import find_entry, find_files, is_entry
from rpat_cli.loading.start import is_missing
from rpat_cli.loading.start_name import frozen_in
from rpat_cli.models import is_remote
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import python_file, trust, unasked_download, untrusted
from rpat_cli.records.files import user_path
from rpat_cli.records.run_folder import open_run


def check_networks(recipe: Recipe) -> None:
    """Raise `ConfigError` with all that are missing."""
    problems = list(missing_networks(recipe))
    if problems:
        raise ConfigError(*problems)


def missing_networks(recipe: Recipe) -> Iterator[Problem]:
    """The start, and the networks that the method learns from, which are not on this machine, and
    whose code or download nobody has answered for."""
    named = {f"method.{name}": source for name, source in frozen_in(recipe).items()}
    if recipe.init is not None:
        named["init"] = recipe.init
    for key, source in named.items():
        try:
            option = f"--init {source}" if key == "init" else f"--set {key}={source}"
            problem = unanswered(source, option, key=key)
            if problem is None:
                _find(source, Path(recipe.data.root))
        except RpatError as error:
            problem = Problem(key, str(error))
        if problem is not None:
            yield problem


def unanswered(network: str, option: str, *, key: str = "", source: str = "") -> Problem | None:
    """The mistake that `source`, or the recipe's `key`, names a network that takes code to run, or
    weights to download, which the user has not named. `option` is the one that names it."""
    program = None if user_path(network, source=source).exists() else python_file(network)
    if program is not None and not trust().allows(program):
        return untrusted(program.resolve(), source, key=key)
    if is_remote(network) and not trust().allows_download(network) and is_missing(network):
        return unasked_download(network, option, key=key, source=source)
    return None


def _find(source: str, root: Path) -> None:
    if is_remote(source):
        return
    if is_entry(source):
        find_files(find_entry(source, None, None), [root])
        return
    path = python_file(source) or split_key(user_path(source))[0]
    if path.is_file():
        return
    if not path.is_dir() and path.suffix:
        raise ConfigError(f"there is no {source}.")
    run = open_run(path)
    if not any(run.checkpoint(name).exists() for name in ("best", "last")):
        raise RunFolderError(f"{path} has no checkpoint yet.")
