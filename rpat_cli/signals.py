"""Every signal handler of rpat: what Ctrl-C and a request to terminate mean, by what is going on.

    while importing             Ctrl-C ends the process at once          importing
    training, sweeping          noted, honored at the next safe point    StopSignals
    evaluating                  ends the block at once                   stoppable
    in a worker process         ignored: its parent ends it              ignoring_signals
    in a rank other than 0      leaves, a moment after rank 0            leave_after
    in a job on a cluster node  noted, passed on to the trial            interrupts, blocked

A process that was stopped exits with 130 after Ctrl-C and with 75 after any other signal: 75 is
sysexits' EX_TEMPFAIL, "try again", which schedulers take for a job to be queued again.

Handlers can be set in the main thread only. In any other (a notebook's, a server's) these contexts
change nothing: whoever owns the main thread decides there.

Standard library only: cluster jobs and `rpat --help` import this before anything heavy.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, NoReturn

from rpat_cli.errors import Interrupted

Handler = Callable[[int, FrameType | None], Any]

TERMINATION = ("SIGTERM", "SIGUSR1")
"""Signals that ask to stop. Slurm sends SIGUSR1 before the time limit if asked to; Windows lacks
it."""

STOP_SIGNALS = ("SIGINT", *TERMINATION)
"""Ctrl-C, and the signals that ask to stop."""


def exit_code(number: int | None) -> int:
    """With which a process exits that this signal stopped, everything saved."""
    return 130 if number == signal.SIGINT else 75


@contextmanager
def _handling(names: Iterable[str], handler: Handler | signal.Handlers) -> Iterator[None]:
    """Inside, `handler` takes those of the signals that this platform has."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for name in names:
                number = getattr(signal, name, None)
                if number is not None:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def importing() -> Iterator[None]:
    """In this block Ctrl-C ends the process at once.

    Importing torch takes seconds, and a KeyboardInterrupt gets lost in there: libraries that try an
    optional import take it for a sign that the package is broken, and go on without it.
    """
    # Another handler than Python's own (an embedding program's, or SIG_IGN of a process that a
    # shell started in the background) stays in force.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    with _handling(["SIGINT"], signal.SIG_DFL):
        yield


class StopSignals:
    """While entered, Ctrl-C and termination signals are only noted, in `received`, to be honored
    between two steps.

    A second Ctrl-C raises `KeyboardInterrupt` at once.
    """

    SIGNALS = STOP_SIGNALS

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: AbstractContextManager[None] = _handling(self.SIGNALS, self._note)

    def __enter__(self) -> "StopSignals":
        self._handlers.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._handlers.__exit__(None, None, None)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    @property
    def exit_code(self) -> int:
        return exit_code(self.received)


class _Terminated(KeyboardInterrupt):
    """A termination signal as an exception; like Ctrl-C, no `except Exception` swallows it."""


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Ctrl-C and termination signals end the block at once, as `Interrupted` with this message.

    For work that is saved piece by piece, so that it can be cut off anywhere.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        raise _Terminated

    # SIGINT keeps Python's handler: where a shell has told a background process to ignore Ctrl-C,
    # it goes on doing so.
    with _handling(TERMINATION, stop):
        try:
            yield
        except _Terminated:
            raise Interrupted(message, exit_code(signal.SIGTERM)) from None
        except KeyboardInterrupt:
            raise Interrupted(message, exit_code(signal.SIGINT)) from None


def ignoring_signals() -> AbstractContextManager[None]:
    """Processes started in this block ignore Ctrl-C and SIGUSR1 from their first moment on, since
    the terminal and Slurm signal whole process groups; their parent ends them, in silence.

    SIGTERM, with which it does so, keeps its effect.
    """
    return _handling(["SIGINT", "SIGUSR1"], signal.SIG_IGN)


def leave_after(seconds: float) -> None:
    """From now on, Ctrl-C and termination signals end this process, so many seconds after they
    came."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        time.sleep(seconds)
        os._exit(exit_code(number))

    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, leave)


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """The numbers of the SIGINTs and SIGTERMs that came while this is entered, instead of an
    exception at any point of the code.

    An exception could come before the process that it is for has been started, or inside the
    handler of an earlier signal. SIGINT is noted even where it was ignored, as in a sweep that a
    shell started in the background.
    """
    received: list[int] = []
    with _handling(["SIGINT", "SIGTERM"], lambda number, _: received.append(number)):
        yield received


def on_sigterm(handler: Callable[[], None]) -> None:
    """From now on, SIGTERM only calls `handler`."""
    signal.signal(signal.SIGTERM, lambda *_: handler())


@contextmanager
def blocked(*signals: int) -> Iterator[None]:
    """These signals wait until the block ends. Processes started in it never receive them: a child
    inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
