"""A run's log.txt: all that is said on the console while the run is trained or evaluated, whether
anybody looks or not."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from rich.console import Console

from rpat_cli.engine.callbacks import EpochLines
from rpat_cli.errors import RpatError
from rpat_cli.records.files import appending
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.progress_lines import EvalLines

WIDTH = 100
"""Columns of a table in the log."""


def writer(folder: RunFolder) -> Callable[[str], None]:
    """Writes a text to the run's log, with the time."""

    def write(text: str) -> None:
        with appending(folder.log) as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    return write


def also_logging(listener: Listener, folder: RunFolder) -> Listener:
    """A listener that also writes every message, and a line for every epoch and attack, to the
    run's log."""
    write = writer(folder)
    attacks = EvalLines(write)

    def say(text: str) -> None:
        write(text)
        listener.say(text)

    def on_progress(progress: Any) -> None:
        attacks(progress)
        listener.on_progress(progress)

    callbacks = (*listener.callbacks, EpochLines(write))
    return replace(listener, say=say, callbacks=callbacks, on_progress=on_progress)


@contextmanager
def logging_errors(folder: RunFolder) -> Iterator[None]:
    """Writes the message of an `RpatError` to the log on its way."""
    try:
        yield
    except RpatError as error:
        writer(folder)(f"{type(error).__name__}: {error}")
        raise


def as_text(*shown: Any) -> str:
    """Tables and texts for the terminal as plain text."""
    file = io.StringIO()
    plain: dict[str, Any] = {"color_system": None, "highlight": False, "emoji": False}
    # In a notebook a console would display the text there, whatever its file is.
    console = Console(file=file, width=WIDTH, force_jupyter=False, **plain)
    for each in shown:
        console.print(each)
    return "\n".join(line.rstrip() for line in file.getvalue().strip("\n").splitlines())
