"""The command `rpat`: its commands, and how every error leaves it."""

import os
import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from rpat_cli.cli import console, torchrun
from rpat_cli.cli.compare import compare
from rpat_cli.cli.eval import evaluate
from rpat_cli.cli.recipes import recipes
from rpat_cli.cli.sweep import sweep
from rpat_cli.cli.train import TrainCommand, train
from rpat_cli.errors import RpatError
from rpat_cli.version import __version__

app = typer.Typer(
    name="rpat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=TrainCommand)(train)
app.command("eval")(evaluate)
app.command("compare")(compare)
app.command("sweep")(sweep)
app.add_typer(recipes, name="recipes")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rpat {__version__}")
        raise typer.Exit


@app.callback()
def rpat(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  (its callback has done all)
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
    """Run the command line; of several processes under torchrun, only the first one speaks."""
    torchrun.end_with_launcher()
    with torchrun.staying_behind() if torchrun.is_helper() else nullcontext():
        _run()


def _run() -> None:
    """Every expected error is one clear message and its exit code, never a traceback."""
    # Before torch is imported: OpenMP's threads are to spin only shortly while they wait for each
    # other. Spinning long makes small networks many times slower as soon as another process takes a
    # core; never spinning costs almost half the speed when none does.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    arguments = sys.argv[1:]
    if arguments[-1:] == ["--attack"] and arguments[0] == "eval":
        arguments.append("list")  # `rpat eval --attack` alone asks what there is
    try:
        app(
            arguments, prog_name="rpat"
        )  # by whatever name it was started: shells complete that one
    except RpatError as error:
        if os.environ.get("RPAT_DEBUG"):
            raise
        console.error(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as leaving:
        if (
            isinstance(leaving, SystemExit) and leaving.code != 130
        ):  # typer makes 130 of a Ctrl-C, without a word
            raise
        console.error("stopped.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to tell it
        sys.stdout = None
        sys.exit(1)
    except OSError as error:  # a full disk, a file that may not be written: the message says which
        if os.environ.get("RPAT_DEBUG"):
            raise
        console.error(str(error))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("RPAT_DEBUG"):
            raise
        if _is_out_of_memory(error):
            console.error(
                f"out of memory: {' '.join(str(error).split())}\n"
                "Take a smaller --batch-size; training also has --accumulate (the same batch in "
                "parts) and "
                "--precision bf16. A run that was stopped goes on with: rpat train --resume last"
            )
            sys.exit(1)
        console.error(
            f"{type(error).__name__}: {error}\n"
            "This is a bug in rpat. Run again with RPAT_DEBUG=1 to see where, and please report it."
        )
        sys.exit(1)


def _is_out_of_memory(error: Exception) -> bool:
    """By name: torch, whose error it is on a GPU, may not be imported here. On the CPU it raises a
    `RuntimeError`."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: " in str(error)
    )
