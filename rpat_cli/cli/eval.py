"""`rpat eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rpat_cli.cli import console
from rpat_cli.cli.options import jobs_option, parse_jobs
from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.suite import Overrides, list_attacks, parse_suite
from rpat_cli.models import model_names
from rpat_cli.numbers import parse_number
from rpat_cli.recipe_io import flag_layers, parse_assignments

WHAT = "What to measure"
HOW = "How to run it"


def evaluate(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT]",
            help="A run folder or a checkpoint file (default: the newest run under runs/).",
            show_default=False,
        ),
    ] = None,
    attack: Annotated[
        str,
        typer.Option(
            "--attack",
            "-a",
            metavar="ATTACKS",
            help="Attacks and suites, separated by commas; --attack alone lists them all.",
            rich_help_panel=WHAT,
            autocompletion=lambda: list(list_attacks()),
        ),
    ] = "standard",
    norm: Annotated[
        str | None,
        typer.Option(
            "--norm",
            metavar="NORM",
            help="Norm of the perturbation: Linf, L2, L1 (default: the run's).",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            "--eps",
            metavar="NUMBER",
            help="Largest perturbation, such as 8/255 (default: the run's, or the data set's for another norm).",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            min=1,
            help="Steps of the attacks that leave them open.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    step_size: Annotated[
        str | None,
        typer.Option(
            "--step-size",
            metavar="NUMBER",
            help="Step size of the attacks that take one.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            "--restarts",
            metavar="N",
            min=1,
            help="Random restarts of the attacks that take them.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Literal["best", "last", "best_wa", "last_wa"],
        typer.Option("--checkpoint", help="Which model of a run folder; _wa: averaged.", rich_help_panel=WHAT),
    ] = "best",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Network of a file that other code has saved, if its weights do not tell.",
            rich_help_panel=WHAT,
            show_default=False,
            autocompletion=model_names,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME",
            help="Data set (default: the run's; needed for a file that other code has saved).",
            rich_help_panel=WHAT,
            show_default=False,
            autocompletion=lambda: list(DATASETS),
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any key of the run's recipe, for example data.image_size=64; may be repeated.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            "--data-root",
            metavar="DIR",
            help="Folder that holds the data sets (default: the run's).",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool | None,
        typer.Option(
            "--download/--no-download",
            help="Download the data set if it is missing.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            metavar="N",
            min=1,
            help="Images attacked at a time (default: 100 on a CPU, 250 elsewhere).",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[str, jobs_option(HOW)] = "auto",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Measure on N of the test images only: always the same ones, each class by its share.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            "--seed",
            "-s",
            metavar="N",
            help="Seed of the attacks (default: the run's).",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where to compute: auto, cpu, cuda, mps (default: the run's).",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Look for signs that the attacks were fooled: PASS, WARN or FAIL (exit code 3), with reasons.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    perception: Annotated[
        bool,
        typer.Option(
            "--perception",
            help="Measure how the logits change on the way to broken and to defended adversarial images.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.", rich_help_panel=HOW)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=HOW)] = False,
) -> None:
    """Measure how robust a trained model is, on the whole test set, in float32.

    Every adversarial image is checked to lie in the threat and in [0, 1], and predicted anew, before it counts.

    An evaluation that was stopped or killed goes on where it was when the same command is given again.

    Examples:

      rpat eval --attack autoattack

      rpat eval runs/my-run --attack clean,pgd-20,pgd-50x10,autoattack

      rpat eval runs/my-run/checkpoints/last.pt --norm L2 --eps 0.5 --attack quick

      rpat eval --attack autoattack:apgd-ce+square --json

      rpat eval --attack autoattack --limit 100 --jobs 4

      rpat eval --attack pgd-50 --check --perception

      rpat eval published/last.model --data cifar10 --data-root ~/data --attack autoattack
    """
    if attack == "list":
        console.out.print(console.glossary(list_attacks()))
        return
    specs = parse_suite(attack, Overrides(steps, _number("--step-size", step_size), restarts))
    changes = flag_layers(
        {
            "--norm": (("threat", "norm"), norm),
            "--eps": (("threat", "eps"), eps),
            "--model": (("model",), model),
            "--data": (("data", "name"), data),
            "--data-root": (("data", "root"), data_root),
            "--download": (("data", "download"), download),
            "--seed": (("seed",), seed),
            "--device": (("device",), device),
        }
    )
    from rpat_cli.cli import session  # torch is imported here, not by `rpat --help`

    session.evaluate(
        target=target,
        specs=specs,
        checkpoint=checkpoint,
        changes=[*parse_assignments(assign or []), *changes],
        batch_size=batch_size,
        jobs=parse_jobs(jobs),
        limit=limit,
        analyses=[name for name, asked in {"verdict": check, "perception": perception}.items() if asked],
        quiet=quiet,
        as_json=as_json,
    )


def _number(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(parse_number(text))
    except ValueError as error:
        raise ConfigError(Problem("", f"{text!r} {error}.", flag)) from None
