"""`rpat compare`."""

from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.signals import importing

WHAT = "What to compare"
HOW = "How to show it"


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="An evaluation's JSON file, or a run (its newest evaluation)."
        ),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.")],
    changed: Annotated[
        bool,
        typer.Option(
            "--changed",
            help="List all images that only one of the two gets right.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=HOW)
    ] = False,
) -> None:
    """Compare two models on the same images under the same attacks; McNemar's exact test says
    whether the difference is chance.

    Examples:

      rpat compare runs/pgd runs/rpat

      rpat compare runs/pgd runs/rpat --changed

      rpat compare runs/pgd/evals/best.json runs/rpat/evals/best.json --json
    """
    with importing():
        from rpat_cli.cli import session  # torch is imported here, not by `rpat --help`

    session.compare(a, b, changed=changed, as_json=as_json)
