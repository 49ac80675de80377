"""`rpat eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rpat_cli.cli import console
from rpat_cli.cli.options import choices_of, jobs_option, parse_jobs
from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.suite import Overrides, list_attacks
from rpat_cli.models import model_names
from rpat_cli.recipe.layers import flag_layers, parse_assignments
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.signals import importing
from rpat_cli.text import parse_number

WHAT = "What to measure"
HOW = "How to run it"


def evaluate(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|LIBRARY:NAME]",
            help=(
                "A run folder, a checkpoint file, torchvision:NAME, timm:NAME (default: the "
                "newest run under runs/)."
            ),
            show_default=False,
        ),
    ] = None,
    attack: Annotated[
        str,
        typer.Option(
            "--attack",
            "-a",
            metavar="ATTACKS",
            help=(
                "Attacks, suites and suite files (.yaml), separated by commas; --attack alone "
                "lists them all."
            ),
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
            autocompletion=choices_of("threat.norm"),
        ),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            "--eps",
            metavar="NUMBER",
            help=(
                "Largest perturbation, such as 8/255 (default: the run's, or the data set's for "
                "another norm)."
            ),
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
        typer.Option(
            "--checkpoint", help="Which model of a run folder; _wa: averaged.", rich_help_panel=WHAT
        ),
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
    model_file: Annotated[
        str | None,
        typer.Option(
            "--model-file",
            metavar="FILE.py:FUNCTION",
            help=(
                "Measure the model that a function of your own returns, for images in [0, 1]; "
                "needs --data."
            ),
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME",
            help="Data set (default: the run's; needed for every model that rpat has not trained).",
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
            help=(
                "Set any key of the run's recipe, for example data.image_size=64; may be repeated."
            ),
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
            help=(
                "Measure on N of the test images only: always the same ones, each class by its "
                "share."
            ),
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
            autocompletion=choices_of("device"),
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help=(
                "Look for signs that the attacks were fooled, on 200 images: PASS, WARN or FAIL "
                "(exit code 3)."
            ),
            rich_help_panel=WHAT,
        ),
    ] = False,
    perception: Annotated[
        bool,
        typer.Option(
            "--perception",
            help=(
                "How much the logits change on the way to broken and to defended adversarial "
                "images; of all images."
            ),
            rich_help_panel=WHAT,
        ),
    ] = False,
    eps_curve: Annotated[
        bool,
        typer.Option(
            "--eps-curve",
            help=(
                "Robust accuracy from eps 0 to 4 times the threat's, by PGD, on 1,000 images at "
                "most."
            ),
            rich_help_panel=WHAT,
        ),
    ] = False,
    eps_curve_fmn: Annotated[
        bool,
        typer.Option(
            "--eps-curve-fmn",
            help=(
                "The same from the sizes of the smallest perturbations that FMN finds (needs "
                "foolbox)."
            ),
            rich_help_panel=WHAT,
        ),
    ] = False,
    loss_surface: Annotated[
        bool,
        typer.Option(
            "--loss-surface",
            help=(
                "The loss around 64 images along the gradient and a random direction, and how "
                "linear it is."
            ),
            rich_help_panel=WHAT,
        ),
    ] = False,
    corruptions: Annotated[
        Path | None,
        typer.Option(
            "--corruptions",
            metavar="DIR",
            help=(
                "Measure the error on corrupted images too: a folder as CIFAR-10-C and "
                "CIFAR-100-C are published."
            ),
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    corruptions_baseline: Annotated[
        Path | None,
        typer.Option(
            "--corruptions-baseline",
            metavar="FILE|RUN",
            help=(
                "Former result of another model on them: with it comes mCE, the error in "
                "relation to that model's."
            ),
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the result only.", rich_help_panel=HOW)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=HOW)
    ] = False,
) -> None:
    """Measure how robust a trained model is, on the whole test set, in float32.

    Every adversarial image is checked to lie in the threat and in [0, 1], and predicted anew,
    before it counts.

    An evaluation that was stopped or killed goes on where it was when the same command is given
    again.

    The processes that torchrun starts, on one machine or several, share one evaluation.

    Examples:

      rpat eval --attack autoattack

      rpat eval runs/my-run --attack clean,pgd-20,pgd-50x10,autoattack

      rpat eval runs/my-run/checkpoints/last.pt --norm L2 --eps 0.5 --attack quick

      rpat eval --attack autoattack:apgd-ce+square --json

      rpat eval --attack pgd-50,transfer:runs/other,my-suite.yaml

      rpat eval --attack autoattack --limit 100 --jobs 4

      torchrun --nproc-per-node 8 -m rpat_cli eval --attack autoattack

      rpat eval --attack pgd-50 --check --perception --eps-curve --loss-surface

      rpat eval --attack clean --corruptions ~/data/CIFAR-10-C --corruptions-baseline runs/standard

      rpat eval published/last.model --data cifar10 --data-root ~/data --attack autoattack

      rpat eval torchvision:resnet18 --data imagefolder --data-root ~/imagenet --set
      data.image_size=224

      rpat eval --model-file my.py:build --data cifar10 --attack pgd-50,autoattack
    """
    if attack == "list":
        own = {
            "FILE.yaml": (
                "a suite of your own: a list of these words, and of mappings "
                "{attack: pgd, steps: 50, ...}"
            )
        }
        console.out.print(console.glossary(list_attacks() | own))
        return
    specs = read_suite(attack, Overrides(steps, _number("--step-size", step_size), restarts))
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
    wanted = {
        "verdict": check,
        "perception": perception,
        "eps_curve": eps_curve,
        "eps_curve_fmn": eps_curve_fmn,
        "loss_surface": loss_surface,
    }
    with importing():
        from rpat_cli.cli import session  # torch is imported here, not by `rpat --help`

    session.evaluate(
        target=_target(target, model_file),
        specs=specs,
        checkpoint=checkpoint,
        changes=[*parse_assignments(assign or []), *changes],
        batch_size=batch_size,
        jobs=parse_jobs(jobs),
        limit=limit,
        analyses=[name for name, asked in wanted.items() if asked],
        corruptions=corruptions,
        corruptions_baseline=corruptions_baseline,
        quiet=quiet,
        as_json=as_json,
    )


def _target(target: Path | None, model_file: str | None) -> Path | None:
    """A model's function is named like any other target, once its form is known to be right."""
    if model_file is None:
        return target
    if target is not None:
        raise ConfigError(
            Problem(
                "", f"names the model already, so {str(target)!r} is one too many.", "--model-file"
            )
        )
    file, colon, function = model_file.rpartition(":")
    if not colon or not function or not file.endswith(".py"):
        hint = "Example: my.py:build"
        raise ConfigError(
            Problem(
                "", f"{model_file!r} is not of the form FILE.py:FUNCTION.", "--model-file", hint
            )
        )
    return Path(model_file)


def _number(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(parse_number(text))
    except ValueError as error:
        raise ConfigError(Problem("", f"{text!r} {error}.", flag)) from None
