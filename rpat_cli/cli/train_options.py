"""The options of `rpat train`: those that set a key of the recipe in a table, then its own."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.cli.options import (
    RecipeOption,
    choices_of,
    full_json_option,
    jobs_option,
    recipe_keys,
    track_option,
    trust_option,
)
from rpat_cli.cli.run_options import complete_runs
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine import OPTIMIZERS, OnCollapse
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.methods import METHODS
from rpat_cli.models import model_examples, model_names
from rpat_cli.recipe.schema import added_regularizers
from rpat_cli.recipe.shipped import recipe_names

WHAT = "What to train"
THREAT = "Threat model and attack"
STEPS = "Optimization"
DATA = "Data"
RUN = "Run"

NUMBER = "NUMBER"
NAME = "NAME"
COUNT = "N"

OPTIONS = (
    RecipeOption("method.name", WHAT, NAME, "--method", "-m", choices=METHODS.keys),
    RecipeOption("ra", WHAT),
    RecipeOption(
        "ra.weight",
        WHAT,
        NUMBER,
        "--ra-weight",
        help="weight of the robust perception term",
        default="1",
    ),
    RecipeOption(
        "ra.mix",
        WHAT,
        NUMBER,
        "--ra-mix",
        help="share of the adversarial image in the mixed image",
        default="0.5",
    ),
    RecipeOption(
        "ra.start_epoch",
        WHAT,
        COUNT,
        "--ra-start-epoch",
        help="epochs before robust perception begins",
        default="0",
    ),
    RecipeOption(
        "ra.form",
        WHAT,
        NAME,
        "--ra-form",
        help="how the mixed image's logits are compared",
        default="mse; teacher-kl with rebat",
        choices=lambda: ("mse", "kl", "cosine"),
    ),
    RecipeOption("consistency", WHAT),
    *(RecipeOption(name, WHAT) for name in added_regularizers()),
    RecipeOption("wa", WHAT),
    RecipeOption(
        "wa.decay",
        WHAT,
        NUMBER,
        "--wa-decay",
        help="share of the average that one step keeps",
        default="0.999",
    ),
    RecipeOption(
        "wa.start_epoch",
        WHAT,
        COUNT,
        "--wa-start-epoch",
        help="epochs before averaging begins (default: 105 of 200)",
    ),
    RecipeOption("awp", WHAT),
    RecipeOption(
        "awp.gamma",
        WHAT,
        NUMBER,
        "--awp-gamma",
        help="length of the weight perturbation, relative to each layer's weights",
        default="0.005",
    ),
    RecipeOption("sam", WHAT),
    RecipeOption(
        "method.beta",
        WHAT,
        NUMBER,
        "--beta",
        help="weight of the robust term of trades, mart, rebat and others",
        default="the method's own: 6 for trades and mart, 1 for rebat",
    ),
    RecipeOption("model", WHAT, NAME, choices=model_names, completed=model_examples),
    RecipeOption(
        "init", WHAT, "SOURCE", default="random weights", completed=lambda: complete_runs("")
    ),
    RecipeOption("threat.norm", THREAT, "NORM", choices=choices_of("threat.norm")),
    RecipeOption("threat.eps", THREAT, NUMBER, default="the data set's for the norm"),
    RecipeOption("attack.name", THREAT, NAME, "--attack", choices=TRAINING_ATTACKS.keys),
    RecipeOption("attack.steps", THREAT, COUNT),
    RecipeOption("attack.step_size", THREAT, NUMBER),
    RecipeOption("epochs", STEPS, COUNT, short="-e"),
    RecipeOption("batch_size", STEPS, COUNT, short="-b"),
    RecipeOption("accumulate", STEPS, COUNT),
    RecipeOption("optimizer.name", STEPS, NAME, "--optimizer", choices=OPTIMIZERS.keys),
    RecipeOption("optimizer.clip_norm", STEPS, NUMBER),
    RecipeOption("optimizer.lr", STEPS, NUMBER),
    RecipeOption("optimizer.weight_decay", STEPS, NUMBER),
    RecipeOption("optimizer.warmup_epochs", STEPS, NUMBER),
    RecipeOption("schedule.name", STEPS, NAME, "--schedule", choices=SCHEDULES.keys),
    RecipeOption("on_collapse", STEPS, "ACTION", choices=lambda: get_args(OnCollapse)),
    RecipeOption("data.name", DATA, NAME, "--data", "-d", choices=DATASETS.keys),
    RecipeOption("data.root", DATA, "DIR", "--data-root"),
    RecipeOption("data.download", DATA),
    RecipeOption("data.augment", DATA, "NAMES", choices=AUGMENTATIONS.keys),
    RecipeOption("mix", DATA, NAME, choices=MIXINGS.keys),
    RecipeOption("label_smoothing", DATA, NUMBER),
    RecipeOption("data.extra.path", DATA, "FILE", "--extra-data"),
    RecipeOption("data.extra.share", DATA, NUMBER, "--extra-share"),
    RecipeOption("data.val_size", DATA, NUMBER),
    RecipeOption("data.image_size", DATA, "N|HxW", default="64"),
    RecipeOption("eval", RUN, "ATTACKS"),
    RecipeOption("seed", RUN, COUNT, short="-s"),
    RecipeOption("device", RUN, NAME, choices=choices_of("device")),
    RecipeOption("sync_bn", RUN),
    RecipeOption("precision", RUN, NAME, choices=choices_of("precision")),
    RecipeOption("fast", RUN),
    RecipeOption("compile", RUN),
)
"""The options that set a key of the recipe, in the order of the help page."""


SET = "Set any recipe key, as optimizer.nesterov=true; may be repeated (default: none)."


def _option(*names: str, help: str, **settings: Any) -> Any:
    """An option of `rpat train` that is not a key of the recipe."""
    return typer.Option(*names, help=help, rich_help_panel=RUN, show_default=False, **settings)


ShippedRecipe = Annotated[
    str | None,
    _option(
        "--recipe",
        "-r",
        metavar=NAME,
        help="Start from a shipped recipe; rpat recipes lists them (default: none).",
        autocompletion=recipe_names,
    ),
]
RecipeFiles = Annotated[
    list[Path] | None,
    _option(
        "--config",
        "-c",
        metavar="FILE",
        help="Recipe file; if several are given, later ones override earlier ones (default: none).",
    ),
]
Assignments = Annotated[
    list[str] | None,
    _option("--set", metavar="KEY=VALUE", help=SET, autocompletion=recipe_keys),
]
Plugins = Annotated[
    list[str] | None,
    _option(
        "--plugin",
        metavar="FILE",
        help=(
            "Python file with your own methods, regularizers, attacks, models or data sets; may "
            "be repeated (default: none)."
        ),
    ),
]
RunFolder = Annotated[
    Path | None,
    _option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder of the run (default: a readable new name under runs/).",
    ),
]
Resumed = Annotated[
    str | None,
    _option(
        "--resume",
        metavar="RUN",
        help="Continue a run folder exactly where it stopped; 'last' is the newest run (default: "
        "begin a new run).",
        autocompletion=complete_runs,
    ),
]
DryRun = Annotated[
    bool,
    _option(
        "--dry-run",
        help=(
            "Show the resolved recipe and its passes, time and memory on this device; train and "
            "write nothing."
        ),
    ),
]
StopAfter = Annotated[
    str | None,
    _option(
        "--stop-after",
        metavar=COUNT,
        help="Stop after epoch N; --resume continues the run (default: the last epoch).",
    ),
]
RankCount = Annotated[
    str | None,
    _option(
        "--ranks",
        metavar=COUNT,
        help=(
            "Share the training among N processes on this machine; torchrun for several (default: "
            "1)."
        ),
    ),
]
GpuCount = Annotated[
    str | None,
    _option(
        "--gpus",
        metavar=COUNT,
        help="The same, each process on a GPU of its own (default: one process, on --device).",
    ),
]
Track = Annotated[list[str] | None, track_option(RUN)]
Quiet = Annotated[bool, _option("--quiet", "-q", help="Print only the result.")]
JobCount = Annotated[str, jobs_option(RUN)]
Trust = Annotated[bool, trust_option(RUN)]
AsJson = Annotated[bool, _option("--json", help="Print the headline figures as JSON.")]
JsonFull = Annotated[bool, full_json_option(RUN, "the report")]
