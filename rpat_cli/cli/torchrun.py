"""What torchrun says of this process: how many there are of it, and whether it is the one that
speaks. Torch-free."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from rpat_cli.errors import ConfigError

SHARED = ("eval",)
"""The commands whose work several processes can share."""

GRACE = 2.0
"""Seconds by which the others leave later than the first process does: what fails in all is its to
say."""


def size() -> int:
    """How many processes torchrun, or whoever sets the same variables, has started of this one."""
    together = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if together else 1


def is_helper() -> bool:
    """Is this process one of several, and not the first? Then it writes nothing and says
    nothing."""
    return size() > 1 and os.environ["RANK"] != "0"


def end_with_launcher() -> None:
    """End this process at once if torchrun is killed: else it would go on unseen, beside the next
    start."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # started by something else, which need not stay
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def staying_behind() -> Iterator[None]:
    """In this block a helper says nothing; if it fails it leaves late, since torchrun ends all
    others then."""
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
    """Raises `ConfigError` for a command that several processes would each do as a whole, in the
    same files."""
    if size() > 1 and command not in SHARED:
        raise ConfigError(
            f"torchrun has started {size()} processes, but `rpat {command}` is the work of one: "
            "each would write the "
            "same files. Start it without torchrun; several trainings side by side are `rpat "
            "sweep`. "
            f"Under torchrun works: {', '.join(f'rpat {name}' for name in SHARED)}."
        )
