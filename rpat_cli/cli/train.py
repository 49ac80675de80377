"""`rpat train`."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperOption

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.cli.options import (
    RecipeOption,
    check_flags,
    choices_of,
    given_flags,
    jobs_option,
    parse_count,
    parse_jobs,
    recipe_keys,
    track_option,
    trust_option,
    with_recipe_options,
)
from rpat_cli.cli.run_options import complete_runs
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine import OPTIMIZERS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, Mistakes
from rpat_cli.methods import METHODS
from rpat_cli.models import model_examples, model_names
from rpat_cli.recipe.layers import code_named_in, flag_layers, parse_assignments
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.schema import added_regularizers
from rpat_cli.recipe.shipped import recipe_names
from rpat_cli.recipe.trust import trusting
from rpat_cli.signals import importing
from rpat_cli.user_code import speaking_on_stderr

WHAT = "What to train"
THREAT = "Threat model and attack"
STEPS = "Optimization"
DATA = "Data"
RUN = "Run"

ACTIONS = ("off", "warn", "stop", "rollback")

NUMBER = "NUMBER"
NAME = "NAME"
COUNT = "N"

OPTIONS = (
    RecipeOption("method.name", WHAT, NAME, "--method", "-m", choices=METHODS.keys),
    RecipeOption("ra", WHAT),
    RecipeOption(
        "ra.weight", WHAT, NUMBER, "--ra-weight", help="weight of the robust perception term"
    ),
    RecipeOption(
        "ra.mix",
        WHAT,
        NUMBER,
        "--ra-mix",
        help="share of the adversarial image in the mixed image",
    ),
    RecipeOption(
        "ra.start_epoch",
        WHAT,
        COUNT,
        "--ra-start-epoch",
        help="epochs before robust perception begins",
    ),
    RecipeOption(
        "ra.form",
        WHAT,
        NAME,
        "--ra-form",
        help="how the mixed image's logits are compared",
        choices=lambda: ("mse", "kl", "cosine"),
    ),
    RecipeOption("consistency", WHAT),
    *(RecipeOption(name, WHAT) for name in added_regularizers()),
    RecipeOption("wa", WHAT),
    RecipeOption(
        "wa.decay", WHAT, NUMBER, "--wa-decay", help="share of the average that one step keeps"
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
    ),
    RecipeOption("sam", WHAT),
    RecipeOption(
        "method.beta",
        WHAT,
        NUMBER,
        "--beta",
        help="weight of the robust term of trades, mart and rebat",
    ),
    RecipeOption("model", WHAT, NAME, choices=model_names, completed=model_examples),
    RecipeOption("init", WHAT, "SOURCE"),
    RecipeOption("threat.norm", THREAT, "NORM", choices=choices_of("threat.norm")),
    RecipeOption("threat.eps", THREAT, NUMBER),
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
    RecipeOption("on_collapse", STEPS, "ACTION", choices=lambda: ACTIONS),
    RecipeOption("data.name", DATA, NAME, "--data", "-d", choices=DATASETS.keys),
    RecipeOption("data.root", DATA, "DIR", "--data-root"),
    RecipeOption("data.download", DATA),
    RecipeOption("data.augment", DATA, "NAMES", choices=AUGMENTATIONS.keys),
    RecipeOption("mix", DATA, NAME, choices=MIXINGS.keys),
    RecipeOption("label_smoothing", DATA, NUMBER),
    RecipeOption("data.extra.path", DATA, "FILE", "--extra-data"),
    RecipeOption("data.extra.share", DATA, NUMBER, "--extra-share"),
    RecipeOption("data.val_size", DATA, NUMBER),
    RecipeOption("data.image_size", DATA, "N|HxW"),
    RecipeOption("eval", RUN, "ATTACKS"),
    RecipeOption("seed", RUN, COUNT, short="-s"),
    RecipeOption("device", RUN, NAME, choices=choices_of("device")),
    RecipeOption("sync_bn", RUN),
    RecipeOption("precision", RUN, NAME, choices=choices_of("precision")),
    RecipeOption("fast", RUN),
    RecipeOption("compile", RUN),
)
"""The options that set a key of the recipe, in the order of the help page."""


SET = "Set any recipe key, for example optimizer.nesterov=true; may be repeated."


def _option(*names: str, help: str, **settings: Any) -> Any:
    """An option of `rpat train` that is not a key of the recipe."""
    return typer.Option(*names, help=help, rich_help_panel=RUN, show_default=False, **settings)


ShippedRecipe = Annotated[
    str | None,
    _option(
        "--recipe",
        "-r",
        metavar=NAME,
        help="Start from a shipped recipe; rpat recipes lists them.",
        autocompletion=recipe_names,
    ),
]
RecipeFiles = Annotated[
    list[Path] | None,
    _option(
        "--config",
        "-c",
        metavar="FILE",
        help="Recipe file; if several are given, later ones override earlier ones.",
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
            "be repeated."
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
        help="Continue a run folder exactly where it stopped; 'last' is the newest run.",
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
        help="Stop after epoch N; --resume continues the run.",
    ),
]
RankCount = Annotated[
    str | None,
    _option(
        "--ranks",
        metavar=COUNT,
        help="Share the training among N processes on this machine; torchrun for several.",
    ),
]
GpuCount = Annotated[
    str | None,
    _option("--gpus", metavar=COUNT, help="The same, each process on a GPU of its own."),
]
Track = Annotated[list[str] | None, track_option(RUN)]
Quiet = Annotated[bool, _option("--quiet", "-q", help="Print only the result.")]
AsJson = Annotated[bool, _option("--json", help="Print the report as JSON.")]


class TrainCommand(TyperCommand):
    """`rpat train --plugin FILE --help` lists what the plugin adds, too: methods, attacks, models
    and data sets where ours are listed, and regularizers, which are recipe keys, at `--set`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not {"-h", "--help"}.isdisjoint(args):
            with importing(), speaking_on_stderr():
                load_plugins((file, "--plugin") for file in _plugins_in(args))
            self._list_again()
        return super().parse_args(ctx, args)

    def _list_again(self) -> None:
        texts = {option.parameter: option.text for option in OPTIONS}
        # There are no switches for these: the plugin was loaded after the command was made.
        keys = [
            f"{name}=true" for name in added_regularizers() if name.replace("-", "_") not in texts
        ]
        if keys:
            texts["assign"] = f"{SET} Regularizers of plugins: {', '.join(keys)}."
        for parameter in self.params:
            if isinstance(parameter, TyperOption):
                parameter.help = texts.get(parameter.name or "", parameter.help)


def _plugins_in(args: list[str]) -> list[str]:
    """The files that `--plugin` names in a command line, which typer has not read yet."""
    after = [value for name, value in pairwise(args) if name == "--plugin"]
    joined = [arg.removeprefix("--plugin=") for arg in args if arg.startswith("--plugin=")]
    return after + joined


HELP = """Train a robust classifier and report how robust it is.

Without options: small-cnn by pgd on fashion-mini (2,000 real images that come with rpat), norm
Linf, eps 0.1, 10 epochs, seed 0; the report measures clean,pgd-20. Add --ra for RPAT.

The report measures the best and the last epoch on the test set; "best" was chosen on images
held out from training.

Examples:

  rpat train --method consistency --ra

  rpat train --data cifar10 --download --model preact-resnet18 --method trades --beta 6

  rpat train --norm L2 --eps 128/255 --eval clean,pgd-20,autoattack

  rpat train --config recipe.yaml --set optimizer.nesterov=true --seed 1

  rpat train --recipe cifar10-preact-resnet18-fast --dry-run

  rpat train --gpus 4 --data cifar10 --model wrn-34-10

  rpat train --resume last
"""


@with_recipe_options(OPTIONS)
def train(
    *,
    recipe: ShippedRecipe = None,
    config: RecipeFiles = None,
    assign: Assignments = None,
    plugin: Plugins = None,
    out: RunFolder = None,
    resume: Resumed = None,
    dry_run: DryRun = False,
    stop_after: StopAfter = None,
    ranks: RankCount = None,
    gpus: GpuCount = None,
    jobs: Annotated[str, jobs_option(RUN)] = "auto",
    trust: Annotated[bool, trust_option(RUN)] = False,
    track: Track = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **recipe_keys: Any,
) -> None:
    """Train a robust classifier and report how robust it is."""
    mistakes = Mistakes()
    with mistakes.gathered():
        check_flags(OPTIONS, recipe_keys)
    flags = given_flags(OPTIONS, recipe_keys)
    if plugin:
        flags["--plugin"] = (("plugins",), plugin)
    with importing():
        from rpat_cli.cli import session  # torch is imported here, not by `rpat --help`

    named: list[Path | str] = []
    with suppress(ConfigError):  # it is said where the recipe is read
        named = code_named_in([*parse_assignments(assign or []), *flag_layers(flags)])
    process_count: Literal["auto"] | int = 1
    with mistakes.gathered():
        process_count = parse_jobs(jobs)
    how: dict[str, Any] = {"out": out, "resume": resume, "dry_run": dry_run, "track": track or []}
    with trusting(everything=trust, files=named):
        session.train(
            recipe=recipe,
            configs=config or [],
            assignments=assign or [],
            flags=flags,
            stop_after=parse_count(mistakes, "--stop-after", stop_after),
            jobs=process_count,
            quiet=quiet,
            as_json=as_json,
            ranks=parse_count(mistakes, "--ranks", ranks),
            gpus=parse_count(mistakes, "--gpus", gpus),
            mistakes=mistakes,
            **how,
        )
