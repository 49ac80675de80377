"""The arguments of commands that take a model, whatever names it, and the model that they name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli import eval_options as o
from rpat_cli.cli.options import parse_choice
from rpat_cli.cli.run_options import complete_runs
from rpat_cli.errors import Mistakes
from rpat_cli.loading.named import run_or_path
from rpat_cli.recipe.layers import Layer, code_named_in, flag_layers
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.trust import code_of_target, trusting
from rpat_cli.signals import importing
from rpat_cli.user_code import speaking_on_stderr

RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run folder, its name under runs/, last (the newest), best (by validation), a "
        "checkpoint file, torchvision:NAME, timm:NAME, hf:USER/NAME or FILE.py:FUNCTION.",
        autocompletion=complete_runs,
    ),
]


def parameters(*names: str) -> list[Parameter]:
    """Those of the options that change the recipe of a model."""
    return [each for each in o.recipe_parameters() if each.name in names]


@contextmanager
def named_model(
    text: str, flags: Mapping[str, Any], plugins: Sequence[str], *, trust: bool
) -> Iterator[tuple[Path, list[Layer]]]:
    """What the command line names, and the changes to its recipe, as `load_model` takes them.
    Inside, the code that the command line itself names may run."""
    with importing(), speaking_on_stderr():
        loaded = load_plugins((file, "--plugin") for file in plugins)
    given = {**flags, "--plugin": loaded or None}
    changes = flag_layers({flag: (o.RECIPE_KEYS[flag], value) for flag, value in given.items()})
    named = [*code_named_in(changes), *code_of_target(text)]
    with trusting(everything=trust, files=named):
        yield run_or_path(text), changes


def known_checkpoint(name: str) -> str:
    """The name itself. Raises `ConfigError` for one that no run has."""
    mistakes = Mistakes()
    parse_choice(mistakes, "--checkpoint", name, o.CHECKPOINTS)
    mistakes.check()
    return name
