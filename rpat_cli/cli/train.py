"""`rpat train`."""

from pathlib import Path
from typing import Annotated

import typer

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.cli.options import choices_of, given_flags, jobs_option, parse_jobs, recipe_option
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.methods import METHODS
from rpat_cli.models import model_names
from rpat_cli.recipe.shipped import recipe_names
from rpat_cli.signals import importing

WHAT = "What to train"
THREAT = "Threat and attack"
STEPS = "Optimisation"
DATA = "Data"
RUN = "Run"


def train(
    ctx: typer.Context,
    method: Annotated[
        str | None,
        recipe_option(
            "method.name",
            "--method",
            metavar="NAME",
            help="training method",
            short="-m",
            panel=WHAT,
            choices=METHODS.keys,
        ),
    ] = None,
    ra: Annotated[bool | None, recipe_option("ra", panel=WHAT, switch=True)] = None,
    ra_weight: Annotated[
        str | None,
        recipe_option(
            "ra.weight",
            "--ra-weight",
            metavar="NUMBER",
            help="weight of the robust perception term",
            panel=WHAT,
        ),
    ] = None,
    ra_mix: Annotated[
        str | None,
        recipe_option(
            "ra.mix",
            "--ra-mix",
            metavar="NUMBER",
            help="share of the adversarial end in the point between",
            panel=WHAT,
        ),
    ] = None,
    ra_start_epoch: Annotated[
        str | None,
        recipe_option(
            "ra.start_epoch",
            "--ra-start-epoch",
            metavar="N",
            help="epochs before robust perception begins",
            panel=WHAT,
        ),
    ] = None,
    ra_form: Annotated[
        str | None,
        recipe_option(
            "ra.form",
            "--ra-form",
            metavar="NAME",
            help="how the two points are compared",
            panel=WHAT,
            choices=lambda: ("mse", "kl", "cosine"),
        ),
    ] = None,
    consistency: Annotated[
        bool | None, recipe_option("consistency", panel=WHAT, switch=True)
    ] = None,
    wa: Annotated[bool | None, recipe_option("wa", panel=WHAT, switch=True)] = None,
    wa_decay: Annotated[
        str | None,
        recipe_option(
            "wa.decay",
            "--wa-decay",
            metavar="NUMBER",
            help="share of the average that one step keeps",
            panel=WHAT,
        ),
    ] = None,
    wa_start_epoch: Annotated[
        str | None,
        recipe_option(
            "wa.start_epoch",
            "--wa-start-epoch",
            metavar="N",
            help="epochs before averaging begins (default: 105 of 200)",
            panel=WHAT,
        ),
    ] = None,
    awp: Annotated[bool | None, recipe_option("awp", panel=WHAT, switch=True)] = None,
    awp_gamma: Annotated[
        str | None,
        recipe_option(
            "awp.gamma",
            "--awp-gamma",
            metavar="NUMBER",
            help="length of the weight perturbation, relative to each layer",
            panel=WHAT,
        ),
    ] = None,
    beta: Annotated[
        str | None,
        recipe_option(
            "method.beta",
            "--beta",
            metavar="NUMBER",
            help="weight of the robust term of trades, mart and rebat",
            panel=WHAT,
        ),
    ] = None,
    model: Annotated[
        str | None, recipe_option("model", metavar="NAME", panel=WHAT, choices=model_names)
    ] = None,
    norm: Annotated[
        str | None,
        recipe_option(
            "threat.norm", metavar="NORM", panel=THREAT, choices=choices_of("threat.norm")
        ),
    ] = None,
    eps: Annotated[str | None, recipe_option("threat.eps", metavar="NUMBER", panel=THREAT)] = None,
    attack: Annotated[
        str | None,
        recipe_option(
            "attack.name",
            "--attack",
            metavar="NAME",
            help="attack used in training",
            panel=THREAT,
            choices=TRAINING_ATTACKS.keys,
        ),
    ] = None,
    steps: Annotated[str | None, recipe_option("attack.steps", metavar="N", panel=THREAT)] = None,
    step_size: Annotated[
        str | None, recipe_option("attack.step_size", metavar="NUMBER", panel=THREAT)
    ] = None,
    epochs: Annotated[
        str | None, recipe_option("epochs", metavar="N", short="-e", panel=STEPS)
    ] = None,
    batch_size: Annotated[
        str | None, recipe_option("batch_size", metavar="N", short="-b", panel=STEPS)
    ] = None,
    accumulate: Annotated[str | None, recipe_option("accumulate", metavar="N", panel=STEPS)] = None,
    clip_norm: Annotated[
        str | None, recipe_option("optimizer.clip_norm", metavar="NUMBER", panel=STEPS)
    ] = None,
    lr: Annotated[str | None, recipe_option("optimizer.lr", metavar="NUMBER", panel=STEPS)] = None,
    weight_decay: Annotated[
        str | None, recipe_option("optimizer.weight_decay", metavar="NUMBER", panel=STEPS)
    ] = None,
    warmup_epochs: Annotated[
        str | None, recipe_option("optimizer.warmup_epochs", metavar="NUMBER", panel=STEPS)
    ] = None,
    schedule: Annotated[
        str | None,
        recipe_option(
            "schedule.name",
            "--schedule",
            metavar="NAME",
            help="learning-rate schedule",
            panel=STEPS,
            choices=SCHEDULES.keys,
        ),
    ] = None,
    data: Annotated[
        str | None,
        recipe_option(
            "data.name",
            "--data",
            metavar="NAME",
            help="data set",
            short="-d",
            panel=DATA,
            choices=DATASETS.keys,
        ),
    ] = None,
    data_root: Annotated[
        str | None, recipe_option("data.root", "--data-root", metavar="DIR", panel=DATA)
    ] = None,
    download: Annotated[
        bool | None, recipe_option("data.download", panel=DATA, switch=True)
    ] = None,
    augment: Annotated[
        str | None,
        recipe_option("data.augment", metavar="NAMES", panel=DATA, choices=AUGMENTATIONS.keys),
    ] = None,
    mix: Annotated[
        str | None, recipe_option("mix", metavar="NAME", panel=DATA, choices=MIXINGS.keys)
    ] = None,
    label_smoothing: Annotated[
        str | None, recipe_option("label_smoothing", metavar="NUMBER", panel=DATA)
    ] = None,
    extra_data: Annotated[
        str | None, recipe_option("data.extra.path", "--extra-data", metavar="FILE", panel=DATA)
    ] = None,
    extra_share: Annotated[
        str | None, recipe_option("data.extra.share", "--extra-share", metavar="NUMBER", panel=DATA)
    ] = None,
    val_size: Annotated[
        str | None, recipe_option("data.val_size", metavar="NUMBER", panel=DATA)
    ] = None,
    image_size: Annotated[
        str | None, recipe_option("data.image_size", metavar="N", panel=DATA)
    ] = None,
    evaluate: Annotated[
        str | None, recipe_option("eval", "--eval", metavar="ATTACKS", panel=RUN)
    ] = None,
    seed: Annotated[str | None, recipe_option("seed", metavar="N", short="-s", panel=RUN)] = None,
    device: Annotated[
        str | None, recipe_option("device", metavar="NAME", panel=RUN, choices=choices_of("device"))
    ] = None,
    precision: Annotated[
        str | None,
        recipe_option(
            "precision",
            metavar="NAME",
            help="arithmetic of training (evaluation is always fp32)",
            panel=RUN,
            choices=choices_of("precision"),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME",
            help="Start from a shipped recipe; rpat recipes lists them.",
            rich_help_panel=RUN,
            show_default=False,
            autocompletion=recipe_names,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Recipe file; several are laid over one another in order.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any recipe key, for example optimizer.nesterov=true; may be repeated.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        recipe_option(
            "plugins",
            "--plugin",
            metavar="FILE",
            help=(
                "Python file with methods, attacks, models or data sets of your own; may be "
                "repeated"
            ),
            panel=RUN,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the run (default: a readable new name under runs/).",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run folder exactly where it stopped; 'last' is the newest run.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help=(
                "Show the resolved recipe, its passes, time and memory on this device; train and "
                "write nothing."
            ),
            rich_help_panel=RUN,
        ),
    ] = False,
    stop_after: Annotated[
        int | None,
        typer.Option(
            "--stop-after",
            metavar="N",
            min=1,
            help="End this session after epoch N, to be resumed later.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[str, jobs_option(RUN)] = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the result only.", rich_help_panel=RUN)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Train a robust classifier and report how robust it is.

    The report measures the best and the last epoch on the test set; "best" was chosen on images
    held out from training.

    Examples:

      rpat train --method consistency --ra

      rpat train --data cifar10 --download --model preact-resnet18 --method trades --beta 6

      rpat train --norm L2 --eps 128/255 --eval clean,pgd-20,autoattack

      rpat train --config recipe.yaml --set optimizer.nesterov=true --seed 1

      rpat train --recipe cifar10-preact-resnet18-fast --dry-run

      rpat train --resume last
    """
    with importing():
        from rpat_cli.cli import session  # torch is imported here, not by `rpat --help`

    session.train(
        recipe=recipe,
        configs=config or [],
        assignments=assign or [],
        flags=given_flags({**ctx.params, "eval": evaluate}),
        out=out,
        resume=resume,
        stop_after=stop_after,
        jobs=parse_jobs(jobs),
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
    )
