"""`rpat train`."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from typer.core import TyperCommand, TyperOption

from rpat_cli.cli import train_options as o
from rpat_cli.cli.options import (
    check_flags,
    given_flags,
    parse_count,
    parse_jobs,
    with_recipe_options,
)
from rpat_cli.cli.printing import Printing
from rpat_cli.errors import ConfigError, Mistakes
from rpat_cli.recipe.layers import code_named_in, flag_layers, parse_assignments
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.schema import added_regularizers
from rpat_cli.recipe.trust import trusting
from rpat_cli.signals import importing
from rpat_cli.user_code import speaking_on_stderr


class Command(TyperCommand):
    """`rpat train --plugin FILE --help` lists what the plugin adds, too: methods, attacks, models
    and data sets where ours are listed, and regularizers, which are recipe keys, at `--set`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not {"-h", "--help"}.isdisjoint(args):
            with importing(), speaking_on_stderr():
                load_plugins((file, "--plugin") for file in _plugins_in(args))
            self._list_again()
        return super().parse_args(ctx, args)

    def _list_again(self) -> None:
        texts = {option.parameter: option.text for option in o.OPTIONS}
        # There are no switches for these: the plugin was loaded after the command was made.
        keys = [
            f"{name}=true" for name in added_regularizers() if name.replace("-", "_") not in texts
        ]
        if keys:
            texts["assign"] = f"{o.SET} Regularizers of plugins: {', '.join(keys)}."
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


@with_recipe_options(o.OPTIONS)
def train(
    *,
    recipe: o.ShippedRecipe = None,
    config: o.RecipeFiles = None,
    assign: o.Assignments = None,
    plugin: o.Plugins = None,
    out: o.RunFolder = None,
    resume: o.Resumed = None,
    dry_run: o.DryRun = False,
    stop_after: o.StopAfter = None,
    ranks: o.RankCount = None,
    gpus: o.GpuCount = None,
    jobs: o.JobCount = "auto",
    trust: o.Trust = False,
    track: o.Track = None,
    quiet: o.Quiet = False,
    as_json: o.AsJson = False,
    json_full: o.JsonFull = False,
    **recipe_keys: Any,
) -> None:
    """Train a robust classifier and report how robust it is."""
    mistakes = Mistakes()
    with mistakes.gathered():
        check_flags(o.OPTIONS, recipe_keys)
    flags = given_flags(o.OPTIONS, recipe_keys)
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
            printing=Printing(quiet, as_json, json_full),
            ranks=parse_count(mistakes, "--ranks", ranks),
            gpus=parse_count(mistakes, "--gpus", gpus),
            mistakes=mistakes,
            **how,
        )
