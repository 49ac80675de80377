"""`rpat runs`: list, show, diff, rm."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.cli import console
from rpat_cli.cli.options import in_list, trust_option
from rpat_cli.cli.run_options import AsJson, complete_runs
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.loading.named import find_run, find_runs, recipe_of
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.run_folder import RUNS
from rpat_cli.runs.choosing import COLUMNS, EXAMPLES, choose_runs, differences, shown
from rpat_cli.runs.cleanup import (
    CHECKPOINTS,
    Removal,
    plan_removal,
    plan_whole_removal,
    remove,
)
from rpat_cli.runs.listing import list_runs
from rpat_cli.signals import importing
from rpat_cli.text import counted, file_size

runs = typer.Typer(invoke_without_command=True, add_completion=False)

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run folder, its name under runs/, last (the newest) or best (by validation).",
        autocompletion=complete_runs,
    ),
]


@runs.callback()
def list_(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where to look; a sweep's folder, too.")
    ] = RUNS,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="KEY=VALUE",
            help=(
                "Only runs with this: =, !=, >, >=, <, <= or ~ (contains) a value; may be "
                f"repeated. {EXAMPLES} (default: all runs)."
            ),
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="KEY",
            help="Sort by this; --sort -robust_acc from high to low (default: by age).",
            autocompletion=lambda: list(COLUMNS),
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the runs: how far each is, and its accuracy on the test set, clean and under the
    strongest attack, in percent.

    Keys are those of --json, and those of the recipe.

    Examples:

      rpat runs

      rpat runs --filter data=cifar10 --filter "robust_acc>=0.4" --sort -robust_acc

      rpat runs --in sweeps/my-sweep --json

      rpat runs show last

      rpat runs diff runs/a runs/b

      rpat runs rm runs/a
    """
    if ctx.invoked_subcommand is not None:
        return
    every = list_runs(folder)
    chosen = choose_runs(every, filters or [], sort)
    if as_json:
        print(json.dumps([run.to_dict() for run in chosen]))
        return
    if not every:
        console.say(f"there is no run in {folder}. Train one with rpat train.")
        return
    from rpat_cli.reports.runs_table import runs_table

    console.out.print(runs_table(chosen, folder))
    for run in chosen:
        for remark in run.remarks:
            console.say(f"! {run.path}: {remark}")
    hidden = len(every) - len(chosen)
    if hidden:
        console.say(f"{hidden} of {len(every)} runs do not match --filter")


@runs.command("show")
def show(
    run: Run,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A plugin that the run names (default: none).",
            show_default=False,
        ),
    ] = None,
    trust: Annotated[bool, trust_option(None)] = False,
    as_json: AsJson = False,
) -> None:
    """Show one run: its recipe in short, results, evaluations and files.

    Examples:

      rpat runs show last

      rpat runs show runs/my-run --json
    """
    folder = find_run(run)
    with importing():
        from rpat_cli.cli import runs_session  # torch is imported here
    with trusting(everything=trust, files=plugin or []):
        runs_session.show(folder, plugins=plugin or [], as_json=as_json)


@runs.command("diff")
def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A run, a recipe file (.yaml), or the name of a shipped recipe.",
            autocompletion=complete_runs,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The one to compare it with.", autocompletion=complete_runs
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show in which keys two recipes differ.

    Examples:

      rpat runs diff runs/a runs/b

      rpat runs diff last quickstart

      rpat runs diff mine.yaml fashion-mini/trades+ra --json
    """
    found = differences(recipe_of(a), recipe_of(b))
    if as_json:
        print(json.dumps({key: {"a": one, "b": other} for key, (one, other) in found.items()}))
        return
    if not found:
        console.out.print("the recipes are the same")
        return
    for key, (one, other) in found.items():
        line = f"{key}: {shown(one)} -> {shown(other)}"
        console.out.print(line, markup=False, soft_wrap=True)


@runs.command("rm")
def rm(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs.", autocompletion=complete_runs),
    ],
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="NAMES",
            help=f"Checkpoints to keep, separated by commas, of {', '.join(CHECKPOINTS)}.",
            autocompletion=lambda incomplete: in_list(CHECKPOINTS, incomplete),
        ),
    ] = "best,best_wa",
    whole: Annotated[
        bool, typer.Option("--whole", help="Remove the runs themselves, with their results.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove checkpoints of finished runs that only a longer training would need, after asking.

    Nothing is ever removed that is not in a run's folder, or that rpat has not written.

    Examples:

      rpat runs rm runs/a runs/b

      rpat runs rm runs/a --keep best,last

      rpat runs rm runs/a --whole --yes
    """
    folders = find_runs(names)
    kept = [name.strip() for name in keep.split(",") if name.strip()]
    removals = plan_whole_removal(folders) if whole else plan_removal(folders, kept)
    files = [path for removal in removals for path in removal.files]
    size = sum(removal.bytes for removal in removals)
    amount = f"{counted(len(files), 'file')}, {file_size(size)}"
    if files and not yes:
        _ask(removals, amount)
    remove(removals)
    left = [path for removal in removals for path in removal.left]
    if as_json:
        answer = {"removed": [*map(str, files)], "bytes": size, "left": [*map(str, left)]}
        print(json.dumps(answer))
        return
    console.out.print(f"removed {amount}")
    for path in left:
        console.say(f"! left alone, since rpat has not written it: {path}")


def _ask(removals: list[Removal], total: str) -> None:
    """Ends the command unless the answer is yes. Raises `ConfigError` where nobody can answer."""
    for removal in removals:
        for path in removal.files:
            console.say(f"{file_size(path.lstat().st_size):>10}  {path}")
    if not sys.stdin.isatty():
        message = "asks before it removes anything, and there is no terminal to ask on."
        raise ConfigError(Problem("", message, "rpat runs rm", "Add --yes to remove these files."))
    typer.confirm(f"Remove these {total}?", abort=True, err=True)
