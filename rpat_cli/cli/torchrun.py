"""This process under torchrun: how many processes there are, and whether it is the first one, which
alone writes and prints. Does not import torch."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from rpat_cli.errors import ConfigError, RpatError

SHARED = ("eval", "train")
"""The commands that several processes can share."""

EXIT_FILE = "RPAT_EXIT_FILE"
"""The environment variable with the file that rank 0 writes its exit code to, for `--ranks`: a rank
0 that has written it has also said what happened."""


class RelayedExit(SystemExit):
    """The exit code of the ranks that this process has started: they have said why."""


GRACE = 2.0
"""Seconds that the other processes wait before they exit with an error, so that the first one can
report what has failed in all of them."""


def size() -> int:
    """How many processes torchrun, or a launcher that sets the same variables, has started."""
    together = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if together else 1


def local_size() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size()))


def number_in(variable: str) -> int:
    """The number that an environment variable holds; 1 if it is not set. Raises `ConfigError` for
    anything else."""
    text = os.environ.get(variable, "1")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{variable}={text!r}: this environment variable is a number, 1 or more.")
    return int(text)


def is_helper() -> bool:
    """Whether this process is one of several and not the first: it writes and prints nothing
    then."""
    return size() > 1 and os.environ["RANK"] != "0"


def note_exit(code: int) -> None:
    """Tell the launcher of `--ranks`, if there is one, with which code rank 0 exits."""
    file = os.environ.get(EXIT_FILE)
    if file and size() > 1 and not is_helper():
        with suppress(OSError):
            Path(file).write_text(str(code))


def said_before(error: RpatError) -> bool:
    """Whether torchrun has started this process again after a mistake of the user, which it can
    only repeat."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return again and isinstance(error, ConfigError)


def end_with_launcher() -> None:
    """Exit at once if torchrun is killed: otherwise this process would go on unnoticed, next to
    those of the next start."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # another launcher, which may exit before us
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def staying_behind() -> Iterator[None]:
    """In this block a helper prints nothing. If it fails it exits late, since torchrun then kills
    all others."""
    with ExitStack() as silence:
        nowhere = silence.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        silence.enter_context(redirect_stdout(nowhere))
        if not os.environ.get("RPAT_DEBUG"):
            silence.enter_context(redirect_stderr(nowhere))
        try:
            yield
        except SystemExit as leaving:
            if leaving.code:
                time.sleep(GRACE)
            raise


def check_command(command: str) -> None:
    """Raises `ConfigError` for a command that every process would execute completely, writing the
    same files."""
    if size() > 1 and command not in SHARED:
        allowed = ", ".join(f"rpat {name}" for name in SHARED)
        raise ConfigError(
            f"torchrun has started {size()} processes, but `rpat {command}` runs in one: each of "
            "them would write the same files. Start it without torchrun; for several trainings in "
            f"parallel use `rpat sweep`. Commands that work under torchrun: {allowed}."
        )
