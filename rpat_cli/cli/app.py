"""The program `rpat`: its commands, and the message and exit code of every error."""

import os
import sys
from contextlib import nullcontext
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rpat_cli.cli import console, torchrun
from rpat_cli.cli.streams import make_streams_safe
from rpat_cli.errors import RpatError, without_pastes
from rpat_cli.hardware import keep_freed_memory
from rpat_cli.user_code import ascribed, is_out_of_memory
from rpat_cli.version import __version__

COMMANDS = {
    "train": ("train:train", "Train a robust classifier and report how robust it is."),
    "eval": ("eval:evaluate", "Measure how robust a trained model is."),
    "bench": ("bench:bench", "Measure how fast this machine trains and evaluates."),
    "compare": ("compare:compare", "Compare two models on the same images and attacks."),
    "report": ("report:report", "Show the results of runs side by side, and write them again."),
    "leaderboard": ("report:leaderboard", "Show RobustBench's leaderboard, and a run's place."),
    "predict": ("predict:predict", "Predict the classes of image files."),
    "export": ("export:export", "Write a model for other programs, and check what is written."),
    "push": ("push:push", "Send a model to the Hugging Face hub."),
    "sweep": ("sweep:sweep", "Train all combinations of a sweep file, and compare them."),
    "doctor": ("doctor:doctor", "Say what this machine has, and what is missing for what."),
    "runs": ("runs:runs", "List the runs; show, compare or remove them."),
    "recipes": ("recipes:recipes", "List the recipes that come with rpat."),
}
"""Name -> the module in this package and what there is the command, a function or a `typer.Typer`;
and the line of the command in `rpat --help`, which imports none of these modules."""


def made(name: str) -> Any:
    """The command of this name, from its module: its help is the module's `HELP` or the docstring,
    and the class of the command the module's `Command`, if there is one."""
    place, _, what = COMMANDS[name][0].partition(":")
    module = import_module(f"rpat_cli.cli.{place}")
    found = getattr(module, what)
    if isinstance(found, typer.Typer):
        commands = found
    else:
        commands = typer.Typer(add_completion=False, rich_markup_mode="rich")
        text = console.help_text(getattr(module, "HELP", found.__doc__))
        commands.command(name, help=text, cls=getattr(module, "Command", None))(found)
    command = typer.main.get_command(commands)
    command.name = name
    return command


class Program(TyperGroup):
    """Makes a command when it is called; until then there is its line in the list."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name and command:
            command = made(name)
            switches_take_nothing(command, ctx)
        return name, command, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        switches_take_nothing(self, ctx)
        super().format_help(ctx, formatter)


def switches_take_nothing(command: Any, ctx: Any) -> None:
    """Typer would show `<bool>` behind each switch, as if a value had to follow."""
    for each in (command, *getattr(command, "commands", {}).values()):
        for option in (*each.params, each.get_help_option(ctx)):
            if getattr(option, "is_flag", False):
                option.metavar = ""


app = typer.Typer(
    name="rpat",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for name, (_, line) in COMMANDS.items():
    app.command(name, help=line)(lambda: None)


def whole() -> Any:
    """The program with all of its commands made, for who reads them: documentation and tests."""
    program: Any = typer.main.get_command(app)
    program.commands = {name: made(name) for name in COMMANDS}
    return program


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rpat {__version__}")
        raise typer.Exit


@app.callback()
def rpat(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  (its callback does all)
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train image classifiers that resist adversarial perturbations, and measure honestly how well
    they do.

    Start here:

      rpat train --method consistency --ra      train on the embedded real images

      rpat eval --attack autoattack             evaluate the newest run
    """
    torchrun.check_command(context.invoked_subcommand or "")


def main() -> None:
    """Run the command line; of several processes under torchrun, only the first one prints."""
    make_streams_safe()
    keep_freed_memory()
    torchrun.end_with_launcher()
    with torchrun.staying_behind() if torchrun.is_helper() else nullcontext():
        try:
            _run()
        except SystemExit as leaving:
            torchrun.note_exit(leaving.code if isinstance(leaving.code, int) else 1)
            raise


def _report(error: RpatError) -> None:
    if not torchrun.said_before(error):
        console.error(str(error))


def _run() -> None:
    """Every expected error becomes one message and its exit code, never a traceback."""
    # Before torch is imported: OpenMP threads should spin only briefly while they wait for each
    # other. Long spinning makes small networks many times slower as soon as another process needs a
    # core; without any spinning they lose almost half of their speed on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    arguments = sys.argv[1:]
    if arguments[-1:] == ["--attack"] and arguments[0] == "eval":
        arguments.append("list")  # `rpat eval --attack` without a value lists the attacks
    try:
        with ascribed():
            # However it was started, this is the name that shells complete.
            app(arguments, prog_name="rpat")
    except RpatError as error:
        if os.environ.get("RPAT_DEBUG"):
            raise
        _report(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as leaving:
        # typer turns a Ctrl-C into exit code 130, without a message.
        if isinstance(leaving, torchrun.RelayedExit) or getattr(leaving, "code", 130) != 130:
            raise
        console.error("stopped.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of the pipe is gone
        sys.stdout = None
        sys.exit(1)
    except OSError as error:  # a full disk, no permission: the message names the file
        if os.environ.get("RPAT_DEBUG"):
            raise
        console.error(without_pastes(str(error)))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("RPAT_DEBUG"):
            raise
        if is_out_of_memory(error):
            console.error(
                f"out of memory: {' '.join(str(error).split())}\n"
                "Use a smaller --batch-size. Training also has --accumulate (gradient accumulation "
                "over parts of the batch) and --precision bf16, and on CUDA takes less with "
                "RPAT_CUDA_GRAPHS=0; resume an interrupted run with: rpat train --resume last"
            )
            sys.exit(1)
        console.error(
            f"{type(error).__name__}: {error}\n"
            "This is a bug in rpat. Run again with RPAT_DEBUG=1 for the traceback, and please "
            "report it."
        )
        sys.exit(1)
