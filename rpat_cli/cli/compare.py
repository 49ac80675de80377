"""`rpat compare`."""

from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.cli.run_options import complete_runs
from rpat_cli.loading.named import run_or_path
from rpat_cli.signals import importing

WHAT = "What to compare"
HOW = "How to show it"

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-k",
        metavar="NAME",
        help=(
            "Which checkpoint of the runs: best, last, best_wa or last_wa (default: best, or "
            "that of the file)."
        ),
        rich_help_panel=WHAT,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        metavar="FILE",
        help=(
            "Write the comparison, the curves of both runs and the differences of their "
            "recipes as a page to this HTML file; nothing is overwritten (default: none)."
        ),
        rich_help_panel=HOW,
        show_default=False,
    ),
]


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help=(
                "A run (its folder, its name under runs/, or last), all of whose evaluations "
                "count, or the JSON file of one evaluation."
            ),
            autocompletion=complete_runs,
        ),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.")],
    checkpoint: Checkpoint = None,
    changed: Annotated[
        bool,
        typer.Option(
            "--changed",
            help="List all images that only one of the two gets right.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    page: Page = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=HOW)
    ] = False,
) -> None:
    """Compare two models on the same images under the same attacks; McNemar's exact test says
    whether the difference is chance.

    Of a run, the newest result of each attack is taken from all its evaluations that match the
    other side's: of the same checkpoint, images and threat. What is missing is said.

    Examples:

      rpat compare runs/pgd runs/rpat

      rpat compare runs/pgd runs/rpat --checkpoint last

      rpat compare runs/pgd runs/rpat --changed --page pgd-against-rpat.html

      rpat compare runs/pgd/evals/best.json runs/rpat/evals/best.json --json
    """
    with importing():
        from rpat_cli.cli import compare_session  # torch is imported here, not by `rpat --help`

    compare_session.compare(
        run_or_path(a),
        run_or_path(b),
        checkpoint=checkpoint,
        changed=changed,
        as_json=as_json,
        page=page,
    )
