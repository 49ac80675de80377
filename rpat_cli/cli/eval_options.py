"""The options of `rpat eval`, as types to declare its parameters with."""

from collections.abc import Callable, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli.options import (
    choices_of,
    full_json_option,
    in_list,
    jobs_option,
    recipe_keys,
    track_option,
    trust_option,
)
from rpat_cli.cli.run_options import complete_runs
from rpat_cli.data import DATASETS
from rpat_cli.evaluation.suite import list_attacks
from rpat_cli.models import model_examples

WHAT = "What to measure"
HOW = "How to run it"

RECIPE_KEYS = {
    "--norm": ("threat", "norm"),
    "--eps": ("threat", "eps"),
    "--threat": ("eval_threats",),
    "--model": ("model",),
    "--data": ("data", "name"),
    "--normalize": ("data", "normalize_as"),
    "--data-root": ("data", "root"),
    "--test-data": ("data", "test_data"),
    "--download": ("data", "download"),
    "--seed": ("seed",),
    "--device": ("device",),
    "--plugin": ("plugins",),
}
"""The options that change a key of the run's recipe."""


def _option(
    *flags: str,
    panel: str,
    help: str,
    metavar: str | None = None,
    choices: Callable[[], Any] | None = None,
    **more: Any,
) -> Any:
    return typer.Option(
        *flags,
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        show_default=False,
        autocompletion=choices,
        **more,
    )


Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN|CHECKPOINT|LIBRARY:NAME]",
        help="A run folder or its name under runs/, last, best, a checkpoint file, "
        "torchvision:NAME, timm:NAME, robustbench:NAME "
        "(default: the newest run under runs/).",
        show_default=False,
        autocompletion=complete_runs,
    ),
]
Attack = Annotated[
    str,
    typer.Option(
        "--attack",
        "-a",
        metavar="ATTACKS",
        help="Attacks, suites and suite files (.yaml), separated by commas; --attack alone lists "
        "them all.",
        rich_help_panel=WHAT,
        autocompletion=lambda incomplete: in_list(list_attacks(), incomplete),
    ),
]
Audit = Annotated[
    str | None,
    _option(
        "--audit",
        panel=WHAT,
        metavar="POINTS",
        help="Bound how many points lower AutoAttack would be, at 95 %: it attacks a random sample "
        "of what the other attacks leave, as large as it must be (default: no audit).",
    ),
]
Norm = Annotated[
    str | None,
    _option(
        "--norm",
        panel=WHAT,
        metavar="NORM",
        help="Norm of the perturbation: Linf, L2, L1 (default: the run's).",
        choices=choices_of("threat.norm"),
    ),
]
Threats = Annotated[
    list[str] | None,
    _option(
        "--threat",
        panel=WHAT,
        metavar="NORM:EPS",
        help="A threat such as Linf:8/255; repeated, all of them and their union: the images that "
        "are right under all (default: the run's).",
    ),
]
Eps = Annotated[
    str | None,
    _option(
        "--eps",
        panel=WHAT,
        metavar="NUMBER",
        help="Largest perturbation, such as 8/255 (default: the run's, or the data set's for "
        "another norm).",
    ),
]
Steps = Annotated[
    str | None,
    _option(
        "--steps",
        panel=WHAT,
        metavar="N",
        help="Steps of the attacks that do not fix them in their name (default: the attack's).",
    ),
]
StepSize = Annotated[
    str | None,
    _option(
        "--step-size",
        panel=WHAT,
        metavar="NUMBER",
        help="Step size of the attacks that have one (default: the attack's).",
    ),
]
Restarts = Annotated[
    str | None,
    _option(
        "--restarts", panel=WHAT, metavar="N", help="Random restarts of attacks (default: theirs)."
    ),
]
Surrogates = Annotated[
    list[str] | None,
    _option(
        "--surrogate",
        panel=WHAT,
        metavar="MODULE=STAND-IN",
        help="Let the attacks' gradients pass a module as identity, relu or FILE.py:FUNCTION; may "
        "be repeated (default: none).",
    ),
]
CHECKPOINTS = ("best", "last", "best_wa", "last_wa")
Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar=f"[{'|'.join(CHECKPOINTS)}]",
        autocompletion=lambda: list(CHECKPOINTS),
        help="Which model of a run folder; _wa: averaged (EMA).",
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    str | None,
    _option(
        "--model",
        panel=WHAT,
        metavar="NAME",
        help="Network of a file that other code has saved, if its weights do not tell; list: shows "
        "all names (default: what the weights tell).",
        choices=model_examples,
    ),
]
ModelFile = Annotated[
    str | None,
    _option(
        "--model-file",
        panel=WHAT,
        metavar="FILE.py:FUNCTION",
        help="Measure the model that a function of your own returns, for images in [0, 1]; needs "
        "--data (default: none).",
    ),
]
Data = Annotated[
    str | None,
    _option(
        "--data",
        "-d",
        panel=WHAT,
        metavar="NAME",
        help="Data set (default: the run's; needed for every model that rpat has not trained).",
        choices=lambda: list(DATASETS),
    ),
]
Normalize = Annotated[
    str | None,
    _option(
        "--normalize",
        panel=WHAT,
        metavar="none|cifar10|imagenet|MEAN/STD",
        help="How a file that other code has saved normalizes its images, if it does not record "
        "that (default: as the data set).",
        choices=lambda: ["none", "imagenet", *DATASETS],
    ),
]
Out = Annotated[
    Path | None,
    _option(
        "--out",
        panel=HOW,
        metavar="DIR",
        help="Folder for the results (default: the run's; runs/external/ for anything else and "
        "for runs that cannot be written to).",
    ),
]
SaveAdv = Annotated[
    Path | None,
    _option(
        "--save-adv",
        panel=HOW,
        metavar="FILE.npz",
        help="Write the worst adversarial example of each image to a new file; --attack "
        "file:FILE.npz reads it (default: none).",
    ),
]
Assign = Annotated[
    list[str] | None,
    _option(
        "--set",
        panel=HOW,
        metavar="KEY=VALUE",
        help="Set a key of the run's recipe: data.image_size=64; may be repeated (default: none).",
        choices=recipe_keys,
    ),
]
Plugins = Annotated[
    list[str] | None,
    _option(
        "--plugin",
        panel=HOW,
        metavar="FILE",
        help="Python file with your attacks, models, diagnostics; may be repeated (default: none).",
    ),
]
Trust = Annotated[bool, trust_option(HOW)]
Download = Annotated[
    bool | None,
    _option(
        "--download/--no-download", panel=HOW, help="Download the data set (default: as the run)."
    ),
]
BatchSize = Annotated[
    str | None,
    _option(
        "--batch-size",
        "-b",
        panel=HOW,
        metavar="N",
        help="Images attacked at a time (default: 100 on a CPU, 250 elsewhere).",
    ),
]
JobCount = Annotated[str, jobs_option(HOW)]
Fast = Annotated[
    bool,
    _option(
        "--fast",
        panel=HOW,
        help="Long attacks search in bfloat16; every adversarial image is verified in float32, and "
        "what is left is attacked again in float32.",
    ),
]
Limit = Annotated[
    str | None,
    _option(
        "--limit",
        panel=WHAT,
        metavar="N|first:N",
        help="Measure on N of the test images only: always the same ones, each class by its share; "
        "first:N takes the first ones (default: all).",
    ),
]
Images = Annotated[
    Path | None,
    _option(
        "--images",
        panel=WHAT,
        metavar="FILE",
        help="Measure on the test images that a text file lists, one a line: numbers from 0, or "
        "file names (default: all).",
    ),
]
Device = Annotated[
    str | None,
    _option(
        "--device",
        panel=HOW,
        metavar="NAME",
        help="Where to compute: auto, cpu, cuda, mps (default: the run's).",
        choices=choices_of("device"),
    ),
]
Track = Annotated[list[str] | None, track_option(HOW)]
Quiet = Annotated[bool, _option("--quiet", "-q", panel=HOW, help="Print the result only.")]
AsJson = Annotated[bool, _option("--json", panel=HOW, help="Print the headline figures as JSON.")]
JsonFull = Annotated[bool, full_json_option(HOW, "the evaluation")]


TEST_DATA_HELP = (
    "Measure on these images of the data set's classes: a folder CLASS/*, or an .npz or .npy file "
    "such as CIFAR-10.1's (default: its own test images)."
)
DATA_ROOT_HELP = "Folder that holds the data sets (default: the run's)."
SEED_HELP = "Seed of the attacks (default: the run's)."


def recipe_parameters() -> list[Parameter]:
    """The options that change the run's recipe, as parameters of a command."""
    test_data = _option("--test-data", panel=WHAT, metavar="FOLDER|FILE", help=TEST_DATA_HELP)
    data_root = _option("--data-root", panel=HOW, metavar="DIR", help=DATA_ROOT_HELP)
    seed = _option("--seed", "-s", panel=HOW, metavar="N", help=SEED_HELP)
    options = {
        "norm": Norm,
        "eps": Eps,
        "threat": Threats,
        "model": Model,
        "data": Data,
        "normalize": Normalize,
        "test_data": Annotated[str | None, test_data],
        "data_root": Annotated[str | None, data_root],
        "download": Download,
        "seed": Annotated[str | None, seed],
        "device": Device,
    }
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]


def by_flag(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of parameters by the flags that they are given with."""
    return {f"--{name.replace('_', '-')}": value for name, value in values.items()}
