"""`rpat recipes`."""

import json
from typing import Annotated

import typer

from rpat_cli.cli import console
from rpat_cli.recipe.shipped import find, headline, recipe_names

recipes = typer.Typer(invoke_without_command=True, add_completion=False)


@recipes.callback()
def list_recipes(
    ctx: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print names and descriptions as JSON.")
    ] = False,
) -> None:
    """List the recipes that come with rpat; train one with `rpat train --recipe NAME`.

    Examples:

      rpat recipes

      rpat recipes show quickstart
    """
    if ctx.invoked_subcommand is not None:
        return
    lines = {name: headline(name) for name in recipe_names()}
    if as_json:
        print(json.dumps(lines))
        return
    width = max(map(len, lines))
    # One line each, however narrow the terminal: names are there to be copied.
    for name, text in lines.items():
        console.out.print(f"{name:<{width}}  {text}", markup=False, soft_wrap=True)
    console.say(
        "\nShow one: rpat recipes show NAME. Train it: rpat train --recipe NAME. To see what it "
        "costs on this machine, add --dry-run."
    )


@recipes.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of a shipped recipe.", autocompletion=recipe_names
        ),
    ],
) -> None:
    """Print a recipe's file: launch command, source, expected numbers, cost and keys.

    What it `extends` is a recipe too. For the fully resolved recipe, run
    `rpat train --recipe NAME --dry-run --json`.
    """
    print(find(name, "NAME").read_text(encoding="utf-8"), end="")
