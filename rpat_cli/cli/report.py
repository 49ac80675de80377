"""`rpat report` and `rpat leaderboard`."""

from typing import Annotated, Literal

import typer

from rpat_cli.cli import eval_options as o
from rpat_cli.cli.run_options import AsJson, complete_runs
from rpat_cli.recipe.trust import trusting
from rpat_cli.signals import importing

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN...]",
        help="Runs, or folders of runs such as a sweep's (default: last, the newest).",
        autocompletion=complete_runs,
        show_default=False,
    ),
]


def report(
    runs: Runs = None,
    checkpoint: Annotated[
        Literal["best", "last", "best_wa", "last_wa", "all"] | None,
        typer.Option(
            "--checkpoint",
            "-k",
            help="Which checkpoint to show (default: best, and of a single run all).",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Literal["text", "markdown", "latex", "csv"],
        typer.Option("--format", "-f", help="Of the table on stdout."),
    ] = "text",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="RUN",
            help="Draw the curves of this run below those of each page (default: none).",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Write report.json and report.html of runs again, and show their results side by side.

    Examples:

      rpat report

      rpat report runs/pgd runs/rpat --format latex

      rpat report runs --format csv

      rpat report last --baseline runs/pgd

      rpat report sweeps/my-sweep --checkpoint last --json
    """
    with importing():
        from rpat_cli.cli import report_session  # torch is imported here
    with trusting(everything=trust, files=plugin or []):
        report_session.report(
            runs or ["last"],
            checkpoint,
            form,
            baseline=baseline,
            plugins=plugin or [],
            as_json=as_json,
        )


def leaderboard(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run to be placed (default: none, the leaderboard alone).",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME",
            help="cifar10, cifar100 or imagenet (default: the run's, or cifar10).",
            show_default=False,
        ),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            "--norm",
            metavar="NORM",
            help="Linf or L2 (default: the run's, or Linf).",
            show_default=False,
        ),
    ] = None,
    extra: Annotated[
        Literal["none", "any"],
        typer.Option(
            "--extra-data",
            help="Entries without additional training images, or all; generated images are no "
            "additional data for RobustBench.",
        ),
    ] = "any",
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, help="Entries to show, the best ones.")
    ] = 20,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Show RobustBench's leaderboard, and where a run would stand on it.

    A run is placed by its accuracy under AutoAttack, or under a stronger attack, on all test
    images: among entries of the same data, threat and rule on extra data.

    Examples:

      rpat leaderboard

      rpat leaderboard --data cifar100 --extra-data none --top 10

      rpat leaderboard last --json
    """
    with importing():
        from rpat_cli.cli import report_session  # torch is imported here
    with trusting(everything=trust, files=plugin or []):
        report_session.leaderboard(
            run, data, norm, extra, top, plugins=plugin or [], as_json=as_json
        )
