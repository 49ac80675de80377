"""Signals: what each context makes of them, and that it leaves the handlers as they were."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from rpat_cli.errors import Interrupted
from rpat_cli.signals import (
    STOP_SIGNALS,
    StopSignals,
    blocked,
    ignoring_signals,
    interrupts,
    stoppable,
)

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(getattr(signal, name)) for name in STOP_SIGNALS]


@pytest.mark.parametrize(("sent", "code"), CODES)
def test_a_stop_signal_is_only_noted(sent: signal.Signals, code: int) -> None:
    before = handlers()
    with StopSignals() as signals:
        send(sent)
        assert signals.received == sent
        assert signals.exit_code == code
    assert handlers() == before


def test_a_second_ctrl_c_raises_at_once() -> None:
    with StopSignals() as signals:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize(("sent", "code"), CODES)
def test_stoppable_work_ends_at_once(sent: signal.Signals, code: int) -> None:
    before = handlers()

    def work() -> None:
        with stoppable("all is saved"):
            send(sent)
            time.sleep(5)

    with pytest.raises(Interrupted, match="all is saved") as error:
        work()
    assert error.value.exit_code == code
    assert handlers() == before


def test_interrupts_are_collected_even_where_they_were_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background job
    try:
        with interrupts() as received:
            send(signal.SIGINT)
            send(signal.SIGTERM)
        assert received == [signal.SIGINT, signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


SAY_HANDLERS = """
import signal
print(*(signal.getsignal(getattr(signal, name)) == signal.SIG_IGN
        for name in ("SIGINT", "SIGUSR1", "SIGTERM")))
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (ignoring_signals, "True True False\nFalse\n"),
        (lambda: blocked(signal.SIGINT), "False False False\nTrue\n"),
    ],
)
def test_a_process_started_inside_ignores_or_never_receives_them(
    context: Callable[[], AbstractContextManager[None]], said: str
) -> None:
    before = handlers()
    with context():
        child = subprocess.run([sys.executable, "-c", SAY_HANDLERS], stdout=subprocess.PIPE)
    assert child.stdout.decode() == said
    assert handlers() == before


@pytest.mark.parametrize(("sent", "code"), CODES)
def test_a_rank_leaves_a_moment_later(sent: signal.Signals, code: int) -> None:
    program = (
        "import time; from rpat_cli.signals import leave_after; leave_after(0.3); "
        "print('ready', flush=True); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        began = time.monotonic()
        child.send_signal(sent)
        assert child.wait(10) == code
        assert time.monotonic() - began >= 0.25


@pytest.mark.parametrize("context", [StopSignals, ignoring_signals, interrupts])
def test_outside_the_main_thread_nothing_changes(
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    before, inside = handlers(), []

    def enter() -> None:
        with context():
            inside.append(handlers())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]
