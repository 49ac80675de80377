"""`rpat sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.signals import importing


def sweep(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="A sweep file, or a shipped sweep's name (a wrong one lists them).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the sweep (default: sweeps/NAME).",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help=(
                "Where the trials run: local (this machine), slurm or ray (default: as the file "
                "says, or local)."
            ),
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            help=(
                "Trials at once, on any engine (default on this machine: one for each GPU, or "
                "else for each core)."
            ),
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the trials, their state and their commands; run nothing."
        ),
    ] = False,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help=(
                "With --dry-run: take a few steps of every combination and say what all would cost."
            ),
        ),
    ] = False,
    retry_failed: Annotated[
        int,
        typer.Option(
            "--retry-failed",
            metavar="N",
            min=0,
            help="Run a failed trial up to N times more before it counts as failed.",
        ),
    ] = 0,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures",
            metavar="N",
            min=1,
            help="Begin no more trials after N have failed.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the table only.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table (or the list) as JSON.")
    ] = False,
) -> None:
    """Train every combination of a sweep file over several seeds, and compare them in a table with
    error bars.

    Call it again to go on: what is finished stays, what was stopped goes on
    from its checkpoint, what failed is tried again. With further axes, values or
    seeds in the file, only what is new is run. A section `search` in the file
    stops the worse combinations early (asha), or has Optuna choose them (optuna).

    Examples:

      rpat sweep fashion-mini-methods --dry-run --cost

      rpat sweep my-sweep.yaml --jobs 4

      rpat sweep my-sweep.yaml --engine slurm

      rpat sweep my-sweep.yaml --retry-failed 1 --max-failures 3
    """
    with importing():
        from rpat_cli.cli import sweep_session  # torch is imported here, not by `rpat --help`

    sweep_session.sweep(
        name=name,
        out=out,
        engine=engine,
        jobs=jobs,
        dry_run=dry_run,
        cost=cost,
        retries=retry_failed,
        max_failures=max_failures,
        quiet=quiet,
        as_json=as_json,
    )
