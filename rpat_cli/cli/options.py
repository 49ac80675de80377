"""Options that set a key of the recipe. Their help is the key's own description, their check is the
recipe's.

They are all read as text: so 8/255 is a number everywhere, and all mistakes are listed at once,
files and flags alike.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rpat_cli.cli import torchrun
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.recipe.schema import Recipe, switches

RecipePath = tuple[str, ...]

_PATHS: dict[str, RecipePath] = {}
"""Parameter name of an option -> the recipe key that it sets."""


def recipe_option(
    key: str,
    name: str = "",
    *,
    metavar: str = "TEXT",
    help: str = "",
    panel: str,
    short: str = "",
    switch: bool = False,
    choices: Callable[[], Iterable[str]] | None = None,
) -> Any:
    """A typer option that sets the recipe's `key`; `name` is the flag (default: the key's last
    part).

    `choices` gives the allowed names for shell completion and the help text.
    """
    path = tuple(key.split("."))
    flag = name or f"--{path[-1].replace('_', '-')}"
    _PATHS[flag[2:].replace("-", "_")] = path
    text = help or description(path)
    if choices is not None:
        text += f": {', '.join(choices())}"
    declared = [f"{flag}/--no-{flag[2:]}"] if switch else [flag, *([short] if short else [])]
    return typer.Option(
        *declared,
        metavar=None if switch else metavar,
        help=text[:1].upper() + text[1:] + ".",
        rich_help_panel=panel,
        show_default=False,
        autocompletion=(lambda: list(choices())) if choices is not None else None,
    )


def jobs_option(panel: str) -> Any:
    """`--jobs`, to be read by `parse_jobs`."""
    return typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        help=(
            "Processes that share the evaluation; auto: one per GPU or core. The result is the "
            "same."
        ),
        rich_help_panel=panel,
    )


def parse_jobs(text: str) -> int | Literal["auto"]:
    """How many processes. Raises `ConfigError` for what is neither a count nor "auto"."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            Problem(
                "", f"{text!r} is neither 'auto' nor a count of processes, at least 1.", "--jobs"
            )
        )
    if int(text) > 1 and torchrun.size() > 1:
        shared = (
            f"given {text}, but the {torchrun.size()} processes of torchrun share the evaluation "
            "already."
        )
        raise ConfigError(
            Problem(
                "", shared, "--jobs", "Leave it out; --nproc-per-node of torchrun says how many."
            )
        )
    return int(text)


def description(path: RecipePath) -> str:
    """The description of a recipe field."""
    return _field(path).description or ""


def choices_of(key: str) -> Callable[[], list[str]]:
    """The names that the recipe allows for a `key` with a fixed set of them, as `choices` of its
    option."""
    return lambda: list(get_args(_field(tuple(key.split("."))).annotation))


def _field(path: RecipePath) -> FieldInfo:
    model: type[BaseModel] = Recipe
    for part in path[:-1]:
        section = model.model_fields[part].annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        model = section
    return model.model_fields[path[-1]]


def given_flags(params: Mapping[str, Any]) -> dict[str, tuple[RecipePath, Any]]:
    """Of a command's parameters those that set the recipe and were given: `{"--beta": (("method",
    "beta"), "3")}`.

    Raises `ConfigError` when a regularizer is turned off and set up in one breath.
    """
    given = {name: params[name] for name in _PATHS if params.get(name) not in (None, ())}
    contradictions = [
        Problem(
            "",
            f"contradicts --no-{switch}.",
            f"--{name.replace('_', '-')}",
            "Leave one of them out.",
        )
        for switch in switches()
        if given.get(switch) is False
        for name in given
        if _PATHS[name][0] == switch and name != switch
    ]
    if contradictions:
        raise ConfigError(*contradictions)
    return {f"--{name.replace('_', '-')}": (_PATHS[name], value) for name, value in given.items()}
