"""The options of `rpat eval` that write its result for CI systems."""

from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli.eval_options import HOW, by_flag

HELP = {
    "sarif": "Write what the verdict and the attacks warn of as SARIF 2.1.0, for code scanning; "
    "see --check (default: none).",
    "junit": "Write the verdict's checks as test cases and the accuracies as properties, as "
    "JUnit XML (default: none).",
}


def parameters() -> list[Parameter]:
    options = []
    for name, text in HELP.items():
        declared = typer.Option(
            f"--{name}", metavar="FILE", help=text, rich_help_panel=HOW, show_default=False
        )
        annotation = Annotated[Path | None, declared]
        options.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return options


def files_by_flag(values: Mapping[str, Any]) -> dict[str, Path]:
    """The files that were asked for."""
    return {flag: file for flag, file in by_flag(values).items() if file is not None}
