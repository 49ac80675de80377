"""Which code may run.

A run folder, a checkpoint, a recipe, a suite and a sweep file may *name* code: plugins, functions
in Python files, shell commands for a cluster. All of these files may come from a stranger. So what
they name runs only if the user named the very same file (`--plugin`, `--model-file`, a word after
`--attack`), or answered for everything that is named with `--trust`, in Python `trust=True`.
Packages that are installed, and the recipes that rpat ships, need no answer.

The answer holds for one command, or for one call of the Python API, and for the thread that it is
given in: it is a context, since code is named in many places, and forgetting to pass an answer on
must mean "no".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpat_cli.errors import Problem
from rpat_cli.evaluation.words import source_and_attack
from rpat_cli.models import is_remote
from rpat_cli.records.files import user_path

if TYPE_CHECKING:
    from rpat_cli.recipe.schema import Recipe

FLAG = "--trust"

HINT = "If you know that code, allow everything that is named with --trust (in Python: trust=True)."


@dataclass(frozen=True)
class Trust:
    """What the user has answered for: the files, and the models of libraries, that they named
    themselves, all `code` that is named, or `everything`, downloads included."""

    everything: bool = False
    files: frozenset[Path] = frozenset()
    models: frozenset[str] = frozenset()
    code: bool = False

    def allows(self, file: Path) -> bool:
        return self.everything or self.code or file.resolve() in self.files

    def allows_download(self, model: str) -> bool:
        """Of the trained weights of `torchvision:NAME`, `timm:NAME` or `hf:REPO`."""
        return self.everything or model in self.models


_answer: ContextVar[Trust] = ContextVar("trust")


def trust() -> Trust:
    """What is trusted here and now."""
    return _answer.get(Trust())


@contextmanager
def trusting(
    *, everything: bool = False, code: bool = False, files: Iterable[Path | str] = ()
) -> Iterator[None]:
    """Inside, these files are trusted as well, or all code, or everything that is named anywhere. A
    name such as `torchvision:NAME` in place of a file is that of a model."""
    outer, named = trust(), set(files)
    models = frozenset(str(name) for name in named if is_remote(str(name)))
    paths = frozenset(user_path(file).resolve() for file in named if str(file) not in models)
    token = _answer.set(
        Trust(
            outer.everything or everything,
            outer.files | paths,
            outer.models | models,
            outer.code or code,
        )
    )
    try:
        yield
    finally:
        _answer.reset(token)


def untrusted(file: Path, source: str, *, key: str = "", flag: str = "") -> Problem:
    """The mistake that `source` wants a file of code to run which nobody has answered for.

    `flag` is the option that names a single file.
    """
    message = f"wants to run the Python file {file}, which you have not named."
    one = f"If you know that file, name it with {flag} FILE. " if flag else ""
    return Problem(key, message, source, one + HINT)


def unasked_download(model: str, option: str = "", *, key: str = "", source: str = "") -> Problem:
    """The mistake that `source` wants the trained weights of a model, which are not on this
    machine, and which nobody has asked for. `option` is the one that asks for it."""
    message = f"wants to download the trained weights of {model}, which you have not named."
    how = option or "on the command line"
    return Problem(key, message, source, f"Name it yourself, {how}, or allow it with --trust.")


def flag_for(recipe: "Recipe") -> str:
    """` --trust`, for a command that reads the saved recipe again, if that names code."""
    values = recipe.model_dump(mode="json", include={"init", "method"})
    named = [*recipe.plugins, *model_files(recipe.eval), *networks_named(values)]
    return f" {FLAG}" if named else ""


# ---- what the user names


def python_file(name: str) -> Path | None:
    """The file of `FILE.py:FUNCTION`; None for a name of another form. Raises `ConfigError` for
    what can be no path."""
    file, colon, function = name.rpartition(":")
    return user_path(file) if colon and function and file.endswith(".py") else None


def networks_named(values: Mapping[str, Any]) -> list[Path | str]:
    """What somebody answers for who writes this layer of a recipe: the trained networks in it that
    code makes or that may have to be downloaded. They are the start, and settings of the method,
    such as its teacher."""
    method = values.get("method")
    settings = list(method.values()) if isinstance(method, Mapping) else []
    names = [name for name in (values.get("init"), *settings) if isinstance(name, str)]
    return [found for name in names for found in code_of_target(name)]


def code_of_target(target: object) -> list[Path | str]:
    """What somebody answers for who names this model: the Python file of `FILE.py:FUNCTION`, or the
    download of a name such as `hf:USER/NAME`."""
    text = str(target)
    if is_remote(text):
        return [text]
    program = python_file(text)
    return [] if program is None else [program]


def model_files(attacks: Any) -> list[Path | str]:
    """The Python files that words like `transfer:FILE.py:FUNCTION@pgd-20` name, and the models of
    libraries and of the hub (`transfer:torchvision:NAME`), whose weights are downloaded.

    `attacks` is whatever may be written after `--attack` or under `eval`; what is wrong in it is
    reported where it is read.
    """
    if isinstance(attacks, Mapping):
        attacks = attacks.get("attack")
    if isinstance(attacks, str):
        words = (word.strip() for word in attacks.split(","))
        transfers = (word for word in words if word.startswith("transfer:"))
        sources = [source_and_attack(word)[0] for word in transfers]
        files = [file for file in map(python_file, sources) if file is not None]
        return [*files, *filter(is_remote, sources)]
    if not isinstance(attacks, Sequence):
        return []
    return [file for entry in attacks for file in model_files(entry)]
