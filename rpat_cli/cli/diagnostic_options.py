"""The options of `rpat eval` that ask for diagnostics, generated from `DIAGNOSTICS`."""

from collections.abc import Callable, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli.splice import Command, spliced
from rpat_cli.diagnostics import DIAGNOSTICS, Option

BY_NAME = "diagnostic"
"""The parameter of `--diagnostic NAME`, with which a plugin's diagnostics are asked for."""


def with_diagnostics(panel: str) -> Callable[[Command], Command]:
    """A decorator: the command's parameter `diagnostics` becomes one option for each diagnostic.

    The command gets the names of those asked for, each with the settings that its options give.
    """

    return spliced("diagnostics", _parameters(panel), asked_for)


def asked_for(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """From values of the generated parameters to the settings of each diagnostic asked for."""
    wanted: dict[str, dict[str, Any]] = {name: {} for name in given[BY_NAME] or ()}
    for name, diagnostic in DIAGNOSTICS.items():
        for option in diagnostic.options:
            # A diagnostic that a plugin added after the command was declared has no flags.
            value = given.get(_name_of(option))
            if value is None or value is False:
                continue
            settings = wanted.setdefault(name, {})
            if option.setting:
                settings[option.setting] = value
    return wanted


def _parameters(panel: str) -> list[Parameter]:
    parameters = []
    for diagnostic in DIAGNOSTICS.values():
        for option in diagnostic.options:
            text = option.help or diagnostic.help
            parameters.append(_parameter(option, text, panel))
    by_name = typer.Option(
        f"--{BY_NAME}",
        metavar="NAME",
        help="Run a diagnostic by its name, such as one of a plugin; may be repeated; "
        "--diagnostic list names them all (default: none).",
        rich_help_panel=panel,
        show_default=False,
        autocompletion=lambda: list(DIAGNOSTICS),
    )
    annotation = Annotated[list[str] | None, by_name]
    parameters.append(
        Parameter(BY_NAME, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    )
    return parameters


def _parameter(option: Option, text: str, panel: str) -> Parameter:
    kind, default = (Path | None, None) if option.metavar else (bool, False)
    if option.metavar:
        text = f"{text.removesuffix('.')} (default: none)."
    declared = typer.Option(
        option.flag,
        metavar=option.metavar or None,
        help=text,
        rich_help_panel=panel,
        show_default=False,
    )
    return Parameter(
        _name_of(option),
        Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, declared],
    )


def _name_of(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")
