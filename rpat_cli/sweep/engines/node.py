"""Where a trial runs, this machine or a node of a cluster: one process at a time in a folder, and
its exit code.

Standard library only: a cluster's job imports this module, and of ours only the lock, before it
starts the trial.
"""

import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rpat_cli.records.lock import locked

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

EXIT_SAVED = 75
"""Exit code of a trial that a signal stopped after saving."""

INTERVAL = 0.05
"""Seconds between two looks at a process that must not be waited for."""


def threads(count: int) -> dict[str, str]:
    """The environment in which a process computes on so many cores."""
    return dict.fromkeys(THREADS, str(count))


@contextmanager
def exclusive(log: Path) -> Iterator[IO[str] | None]:
    """Hold the lock beside a log, or None if another process does. Whoever inherits the file keeps
    the lock."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(log).open("a") as lock:
        if locked(lock):
            lock.truncate(0)
            yield lock
        else:
            yield None


def lock_of(log: Path) -> Path:
    """The lock of a job's folder; it holds the id of the process that works there."""
    return log.with_name("lock")


def has_begun(log: Path) -> bool:
    """Whether a process was started there since the job was submitted, by the same lock."""
    try:
        return lock_of(log).stat().st_size > 0
    except OSError:
        return False


def start(
    prepare: Callable[[], tuple[str, ...]],
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> subprocess.Popen[bytes] | None:
    """Start the command that `prepare` returns, unless another process holds the folder: None then.

    The process holds a lock beside its log for as long as it lives, whatever becomes of us. It has
    a session of its own, so that Ctrl-C at the keyboard reaches only us; all that it prints goes to
    the end of the log. Raises `OSError` if it cannot be started, and whatever `prepare` raises.
    """
    with exclusive(log) as lock:
        if lock is None:
            return None
        command = prepare()
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
                pass_fds=(lock.fileno(),)
                if os.name == "posix"
                else (),  # the child's copy keeps the lock
            )
        lock.write(str(process.pid))
        return process


def kill_group(process: int) -> None:
    """End a process that `start` has made at once, with whatever it has started itself."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


@contextmanager
def blocked(*signals: int) -> Iterator[None]:
    """Signals wait while this is entered. What is started meanwhile never hears of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Work:
    """A command to run on a node, with absolute paths. `command` is what `Job.prepare` has returned
    already."""

    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    cwd: Path

    @property
    def end_at_once(self) -> Path:
        """The file that asks for it."""
        return self.log.with_name("end-at-once")


def run_until_cancelled(work: Work) -> int:
    """Run the command and return its exit code. It saves first when an interrupt comes, which is
    how Ray cancels, or SIGTERM, which a node's processes get when it is shut down.

    When `end_at_once` is there, it is killed. We do that ourselves: if Ray killed this process, the
    command, which has a session of its own, might survive it.
    """
    with interrupts() as heard:
        process = start(lambda: work.command, work.log, work.env, work.cwd)
        if process is None:
            return EXIT_SAVED  # somebody else works there: the sweep asks again
        told = False  # once: a trial takes a second SIGTERM for impatience
        while process.poll() is None:
            if heard and not told:
                process.terminate()
                told = True
            if work.end_at_once.exists():
                kill_group(process.pid)
            time.sleep(INTERVAL)
        work.end_at_once.unlink(missing_ok=True)
        return process.returncode


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """The SIGINTs and SIGTERMs that have come while this is entered, in place of an exception at
    any point of the code.

    An exception could come before the process it is for has a name, or inside the handler of an
    earlier one. SIGINT is heard even where it was ignored, as in a sweep that a shell started in
    the background.
    """
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    try:
        yield heard
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@dataclass
class Attempt:
    """What a job of Slurm does, as submitit knows it: `checkpoint` comes when time is up or the job
    is pre-empted.

    The trial is then asked to save, and the job is queued again; `again` is `Job.prepare` pickled,
    which says how to go on. The command is at hand for the first start, where unpickling it would
    cost a trial the import of torch.
    """

    work: Work
    again: bytes
    requeued: bool = False
    process: int | None = field(default=None, init=False)
    _asked: bool = field(default=False, init=False)

    def __call__(self) -> int:
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, lambda *_: self._ask_to_save())
        # Slurm signals whole process groups: of all of these the trial is to hear SIGTERM only.
        with blocked(signal.SIGUSR2, signal.SIGINT):
            process = start(self._prepare(), self.work.log, self.work.env, self.work.cwd)
            if process is None:
                return EXIT_SAVED  # somebody else works there: the sweep asks again
            self.process = process.pid
        if self._asked:  # before there was a process to tell
            self._ask_to_save()
        try:
            self._wait()
        except UncompletedJobError as error:  # submitit does not queue it again
            self._wait()
            if process.wait() == EXIT_SAVED:
                with self.work.log.open("a", encoding="utf-8") as log:
                    log.write(
                        f"{error} It is saved and can go on; allow it more time or more requeues.\n"
                    )
                return 1
        except (
            subprocess.SubprocessError
        ):  # jobs may not queue themselves here: the sweep takes it up again
            pass
        return process.wait()

    def checkpoint(self) -> "DelayedSubmission | None":
        """Called in a signal handler: let the trial save, and say what is to be queued; None if it
        has ended."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self._ask_to_save()
            if self._wait() != EXIT_SAVED:
                return None
        return DelayedSubmission(replace(self, requeued=True))

    def _prepare(self) -> Callable[[], tuple[str, ...]]:
        # SLURM_RESTART_COUNT: Slurm has queued the job again by itself, after a node failed or was
        # taken away.
        if self.requeued or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            prepare: Callable[[], tuple[str, ...]] = pickle.loads(self.again)
            return prepare
        return lambda: self.work.command

    def _ask_to_save(self) -> None:
        self._asked = True
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGTERM)

    def _wait(self) -> int:
        """Wait for the trial, leaving its exit code for others: `Popen.wait` would deadlock in a
        signal handler."""
        assert self.process is not None
        ended = os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # WNOHANG is not asked for
        return ended.si_status
