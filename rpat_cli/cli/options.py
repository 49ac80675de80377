"""Options that set a key of the recipe: their help is the key's own description, their check is the
recipe's.

They are all read as text: so 8/255 is a number everywhere, and all mistakes are listed at once,
files and flags alike.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, get_args

import typer
from pydantic import BaseModel

from rpat_cli.cli import torchrun
from rpat_cli.cli.recipe_help import default_of, description, field_of
from rpat_cli.errors import ConfigError, Mistakes, Problem, shortened, unknown
from rpat_cli.recipe.components import Section
from rpat_cli.recipe.schema import recipe_class
from rpat_cli.recipe.trust import FLAG
from rpat_cli.recipe.yaml_lines import KeyPath
from rpat_cli.tracking import FLAG as TRACK
from rpat_cli.tracking import TRACKERS

DEFAULT = " (default: "
"""With what a description or help text ends that says its default."""


@dataclass(frozen=True)
class RecipeOption:
    """An option of a command that sets the recipe's `key`: a row of the command's table.

    `flag` is by default the key's last part, `help` the description of its field, to which the
    names of `choices` and the `default`, if not said, the field's, are added; the choices, or
    `completed`, are also what the shell completes. Without a `metavar` the option is a switch:
    `--ra/--no-ra`.
    """

    key: str
    panel: str
    metavar: str = ""
    flag: str = ""
    short: str = ""
    help: str = ""
    default: str = ""
    choices: Callable[[], Iterable[str]] | None = None
    completed: Callable[[], Iterable[str]] | None = None

    @property
    def path(self) -> KeyPath:
        return tuple(self.key.split("."))

    @property
    def long(self) -> str:
        return self.flag or f"--{self.path[-1].replace('_', '-')}"

    @property
    def parameter(self) -> str:
        """The name of the command's parameter."""
        return self.long[2:].replace("-", "_")

    @property
    def text(self) -> str:
        """The help text, with the choices that there are now, and the default."""
        text, said, usual = (self.help or description(self.path)).partition(DEFAULT)
        if self.choices is not None:
            text += f": {', '.join(self.choices())}"
        usual = usual if said else f"{self.default or default_of(self.path)})"
        return f"{text[:1].upper()}{text[1:]}{DEFAULT}{usual}."

    def declared(self) -> Parameter:
        """The option as a parameter that typer reads."""
        is_switch = not self.metavar
        names = [f"{self.long}/--no-{self.long[2:]}"] if is_switch else [self.long]
        if self.short:
            names.append(self.short)
        option = typer.Option(
            *names,
            metavar=self.metavar or None,
            help=self.text,
            rich_help_panel=self.panel,
            show_default=False,
            autocompletion=self._complete if self.completed or self.choices else None,
        )
        annotation = Annotated[bool | None, option] if is_switch else Annotated[str | None, option]
        return Parameter(
            self.parameter, Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )

    def _complete(self, incomplete: str) -> list[str]:
        names = self.completed or self.choices
        return in_list(names() if names is not None else (), incomplete)


def in_list(names: Iterable[str], incomplete: str) -> list[str]:
    """What the shell completes a name with, which may be the last one of a list: `clean,pg`."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names]


def recipe_keys() -> list[str]:
    """The keys of a recipe as `--set` takes them, each with its "="."""
    return [f"{key}=" for key in _keys_of(recipe_class(), "")]


def _keys_of(section: type[BaseModel], prefix: str) -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            keys += _keys_of(kind, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def with_recipe_options(
    table: Sequence[RecipeOption],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command so that it also has the options of `table`. Their values arrive in its
    `**keywords`, to be read with `given_flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in signature(command).parameters.values()
            if parameter.kind is not Parameter.VAR_KEYWORD
        ]
        declared = [option.declared() for option in table]
        command.__signature__ = Signature([*declared, *own])  # type: ignore[attr-defined]
        return command

    return decorate


def given_flags(
    table: Sequence[RecipeOption], values: Mapping[str, Any]
) -> dict[str, tuple[KeyPath, Any]]:
    """The options of the table that were given: `{"--beta": (("method", "beta"), "3")}`."""
    given = [option for option in table if values.get(option.parameter) is not None]
    return {option.long: (option.path, values[option.parameter]) for option in given}


def check_flags(table: Sequence[RecipeOption], values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` when something is turned off and set up at once."""
    problems = [
        Problem("", f"cannot be combined with --no-{off.long[2:]}.", option.long, LEAVE_OUT)
        for off, option in contradictions(table, values)
    ]
    if problems:
        raise ConfigError(*problems)


LEAVE_OUT = "Leave one of them out."


def contradictions(
    table: Sequence[RecipeOption], values: Mapping[str, Any]
) -> list[tuple[RecipeOption, RecipeOption]]:
    """What is turned off and set up at once: the switch, and the option of what it turns off."""
    given = [option for option in table if values.get(option.parameter) is not None]
    found = []
    for switch in given:
        if values[switch.parameter] is False:
            found += [
                (switch, option)
                for option in given
                if option is not switch and option.path[: len(switch.path)] == switch.path
            ]
    return found


def trust_option(panel: str | None) -> Any:
    """`--trust`, for the commands that read files which may name code."""
    return typer.Option(
        FLAG,
        help=(
            "Run all code that runs, checkpoints, recipes, suites and sweep files name, and "
            "download what they ask for; without it only what you name yourself."
        ),
        rich_help_panel=panel,
    )


def track_option(panel: str | None) -> Any:
    """`--track`, to be read by `rpat_cli.tracking.chosen`."""
    return typer.Option(
        TRACK,
        metavar="NAME",
        help=(
            f"Send the figures to a tracker, too: {', '.join(TRACKERS)}; several with commas. W&B "
            "stays offline unless wandb:online (default: none)."
        ),
        rich_help_panel=panel,
        show_default=False,
        autocompletion=lambda incomplete: in_list(TRACKERS, incomplete),
    )


def full_json_option(panel: str, what: str) -> Any:
    """`--json-full`, which `--json` is the short form of."""
    return typer.Option(
        "--json-full",
        help=f"Print the headline figures and all of {what} as JSON, arrays per image included.",
        rich_help_panel=panel,
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


def parse_count(mistakes: Mistakes, flag: str, text: str | None) -> int | None:
    """A whole number, at least 1; None where the flag was not given, or for any other text, which
    is then one of the mistakes."""
    if text is None:
        return None
    if re.fullmatch("0*[1-9][0-9]{0,8}", text):
        return int(text)
    message = f"{shortened(text)!r}: must be a whole number, at least 1."
    mistakes.add(Problem("", message, flag))
    return None


def parse_choice(mistakes: Mistakes, flag: str, text: str, choices: Sequence[str]) -> str:
    """One of the choices; any other text is one of the mistakes."""
    if text not in choices:
        mistakes.add(Problem("", unknown("choice", text, choices), flag))
    return text


def parse_jobs(text: str) -> int | Literal["auto"]:
    """How many processes. Raises `ConfigError` for what is neither a count nor "auto"."""
    if text == "auto":
        return "auto"
    if not re.fullmatch("0*[1-9][0-9]{0,4}", text):
        message = f"{text!r}: must be 'auto' or a number of processes, at least 1."
        raise ConfigError(Problem("", message, "--jobs"))
    if int(text) > 1 and torchrun.size() > 1:
        message = (
            f"{text} has no effect: the {torchrun.size()} processes of torchrun share the "
            "evaluation already."
        )
        hint = "Leave it out; torchrun's --nproc-per-node sets the number of processes."
        raise ConfigError(Problem("", message, "--jobs", hint))
    return int(text)


def choices_of(key: str) -> Callable[[], list[str]]:
    """The names that the recipe allows for a `key` with a fixed set of them, as `choices` of its
    option."""
    return lambda: list(get_args(field_of(tuple(key.split("."))).annotation))
