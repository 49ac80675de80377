"""The options of `rpat sweep`, as types for its signature."""

from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.cli.options import recipe_keys, track_option, trust_option
from rpat_cli.recipe.shipped import SHIPPED_SWEEPS as SHIPPED

SweepName = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME",
        help="A sweep file, or the name of a shipped sweep (a wrong name lists them).",
        autocompletion=lambda: sorted(path.stem for path in SHIPPED.glob("*.yaml")),
        show_default=False,
    ),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder of the sweep (default: sweeps/NAME).",
        show_default=False,
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help=(
            "Where the trials run: local (this machine), slurm or ray (default: the engine of the "
            "file, or local)."
        ),
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help=(
            "Trials at once, on any engine (default on this machine: one per GPU, or one per core "
            "without a GPU)."
        ),
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="List the trials, their states and their commands; run nothing."
    ),
]
Cost = Annotated[
    bool,
    typer.Option(
        "--cost",
        help="With --dry-run: time a few steps of every combination and estimate its cost.",
    ),
]
RetryFailed = Annotated[
    int,
    typer.Option(
        "--retry-failed",
        metavar="N",
        min=0,
        help="Retry a failed trial up to N times before it counts as failed.",
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        metavar="N",
        min=1,
        help="Start no more trials after N have failed (default: no limit).",
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a recipe key in every trial, below the axes: data.root=/data; may be repeated "
        "(default: none).",
        autocompletion=recipe_keys,
        show_default=False,
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A plugin that the sweep file or its recipes name, and that you know; may be "
        "repeated (default: none).",
        show_default=False,
    ),
]
Trust = Annotated[bool, trust_option(None)]
Track = Annotated[list[str] | None, track_option(None)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the table only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the table (or the list) as JSON.")]
