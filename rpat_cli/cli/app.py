"""The program `rpat`: its commands, and the message and exit code of every error."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

import typer
from typer.core import TyperCommand

from rpat_cli.cli import bench as bench_command
from rpat_cli.cli import console, torchrun
from rpat_cli.cli import eval as eval_command
from rpat_cli.cli import train as train_command
from rpat_cli.cli.compare import compare
from rpat_cli.cli.doctor import doctor
from rpat_cli.cli.export import export
from rpat_cli.cli.predict import predict
from rpat_cli.cli.push import push
from rpat_cli.cli.recipes import recipes
from rpat_cli.cli.report import leaderboard, report
from rpat_cli.cli.runs import runs
from rpat_cli.cli.streams import make_streams_safe
from rpat_cli.cli.sweep import sweep
from rpat_cli.errors import RpatError, without_pastes
from rpat_cli.user_code import ascribed, is_out_of_memory
from rpat_cli.version import __version__

app = typer.Typer(
    name="rpat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, tuple[Callable[..., None], str | None, type[TyperCommand] | None]] = {
    "train": (train_command.train, train_command.HELP, train_command.TrainCommand),
    "eval": (eval_command.evaluate, eval_command.HELP, None),
    "bench": (bench_command.bench, bench_command.HELP, None),
    "compare": (compare, compare.__doc__, None),
    "report": (report, report.__doc__, None),
    "leaderboard": (leaderboard, leaderboard.__doc__, None),
    "predict": (predict, predict.__doc__, None),
    "export": (export, export.__doc__, None),
    "push": (push, push.__doc__, None),
    "sweep": (sweep, sweep.__doc__, None),
    "doctor": (doctor, doctor.__doc__, None),
}
"""Name -> the function, its help text, and the class of the command if it is one of ours."""

for name, (function, text, kind) in COMMANDS.items():
    app.command(name, help=console.help_text(text or ""), cls=kind)(function)
app.add_typer(runs, name="runs")
app.add_typer(recipes, name="recipes")


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
