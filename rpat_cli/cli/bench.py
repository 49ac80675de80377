"""`rpat bench`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli.options import check_flags, given_flags, trust_option, with_recipe_options
from rpat_cli.cli.train_options import OPTIONS, Assignments, Plugins, RecipeFiles, ShippedRecipe
from rpat_cli.recipe.layers import code_named_in, flag_layers, parse_assignments
from rpat_cli.recipe.trust import code_of_target, trusting
from rpat_cli.signals import importing

BENCH = "Benchmark"


def _option(*names: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=BENCH, show_default=False, **settings)


Training = Annotated[
    bool,
    _option("--training/--no-training", help="Measure the training of the recipe (default)."),
]
Evaluated = Annotated[
    str | None,
    _option(
        "--evaluation",
        metavar="RUN",
        help="Measure AutoAttack on this run or checkpoint; 'last' is the newest run (default: "
        "none).",
    ),
]
Limit = Annotated[
    int | None,
    _option(
        "--limit",
        metavar="N",
        min=1,
        help="Attack N of the test images (default: 500; 20 with --quick).",
    ),
]
AttackBatch = Annotated[
    int | None,
    _option(
        "--attack-batch",
        metavar="N",
        min=1,
        help="Images attacked at a time by all (default: 250 for pyautoattack, as rpat eval "
        "for ours).",
    ),
]
Seconds = Annotated[
    float | None,
    _option(
        "--seconds",
        metavar="N",
        min=0,
        help="Begin rounds for so long: of the training three at least (default: 60), of the "
        "evaluation one (default: 0).",
    ),
]
Quick = Annotated[
    bool, _option("--quick", help="One round, a few seconds where the network is small.")
]
Recorded = Annotated[
    Path | None,
    _option(
        "--record",
        metavar="NAME",
        help="Write all figures and the machine to NAME.json; nothing is overwritten (default: "
        "none).",
    ),
]
Page = Annotated[
    Path | None,
    _option(
        "--page", metavar="FILE", help="Write a page with plots to this HTML file (default: none)."
    ),
]
AsJson = Annotated[bool, _option("--json", help="Print all figures as JSON.")]


HELP = """Measure how fast this machine trains a recipe: the published code's order of work, rpat
exact, rpat fast, and the bare passes of the network, which no order of work can beat.

They take turns in one process; medians and quartiles over the rounds. Nothing is trained or
downloaded. With --evaluation, AutoAttack as pyautoattack runs it, exact and fast, on a model of
yours.

Examples:

  rpat bench --quick

  rpat bench --data cifar10 --model preact-resnet18 --batch-size 64 --method pgd --ra

  rpat bench --no-training --evaluation runs/my-run --limit 500

  rpat bench --recipe cifar10-preact-resnet18-fast --record my-machine --page my-machine.html
"""


@with_recipe_options(OPTIONS)
def bench(
    *,
    recipe: ShippedRecipe = None,
    config: RecipeFiles = None,
    assign: Assignments = None,
    plugin: Plugins = None,
    training: Training = True,
    evaluation: Evaluated = None,
    limit: Limit = None,
    attack_batch: AttackBatch = None,
    seconds: Seconds = None,
    quick: Quick = False,
    record: Recorded = None,
    page: Page = None,
    trust: Annotated[bool, trust_option(BENCH)] = False,
    as_json: AsJson = False,
    **recipe_keys: Any,
) -> None:
    """Measure how fast this machine trains a recipe and evaluates a model."""
    check_flags(OPTIONS, recipe_keys)
    flags = given_flags(OPTIONS, recipe_keys)
    if plugin:
        flags["--plugin"] = (("plugins",), plugin)
    with importing():
        from rpat_cli.cli import bench_session  # torch is imported here, not by `rpat --help`

    named = code_named_in([*parse_assignments(assign or []), *flag_layers(flags)])
    if evaluation:
        named += code_of_target(evaluation)
    with trusting(everything=trust, files=named):
        bench_session.bench(
            bench_session.layers_of(
                recipe=recipe, configs=config or [], assignments=assign or [], flags=flags
            ),
            bench_session.Wanted(training, evaluation, limit, attack_batch, seconds, quick),
            record_as=record,
            page_file=page,
            as_json=as_json,
        )
