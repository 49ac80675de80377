"""What happens where a trial runs, on this machine or a cluster node: one process at a time in its
folder, and its exit code.

Standard library only, plus our files, lock and signals: a cluster job imports this module before it
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

from rpat_cli.records.files import appending
from rpat_cli.records.lock import locked
from rpat_cli.signals import blocked, interrupts, on_sigterm

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

EXIT_SAVED = 75
"""Exit code of a trial that a signal has stopped after saving a checkpoint."""

INTERVAL = 0.05
"""Seconds between two polls of a process, where a blocking wait would miss a request to stop."""


RANKS = "RPAT_RANKS"
"""The environment variable with the default of `rpat train --ranks`."""


def threads(count: int) -> dict[str, str]:
    """The environment variables that limit a process to so many cores."""
    return dict.fromkeys(THREADS, str(count))


def shared_by(ranks: int, cores: int) -> dict[str, str]:
    """The environment variables of a trial that so many processes share, with so many cores for all
    of them."""
    limit = threads(max(1, cores // ranks))
    return {**limit, RANKS: str(ranks)} if ranks > 1 else limit


@contextmanager
def exclusive(log: Path) -> Iterator[IO[str] | None]:
    """Hold the lock next to a log; None if another process holds it. A child that inherits the file
    keeps the lock."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with appending(lock_of(log)) as lock:
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
    """Start the command that `prepare` returns; None if another process holds the folder.

    The process holds a lock next to its log for as long as it lives, even if this one is killed. It
    has a session of its own, so that Ctrl-C at the keyboard does not reach it; its output is
    appended to the log. Raises `OSError` if it cannot be started, `RunFolderError` if lock or log
    are no files, and whatever `prepare` raises.
    """
    with exclusive(log) as lock:
        if lock is None:
            return None
        command = prepare()
        inherited = (lock.fileno(),) if os.name == "posix" else ()
        with appending(log) as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
                pass_fds=inherited,  # the child's copy keeps the lock
            )
        lock.write(str(process.pid))
        return process


def kill_group(process: int) -> None:
    """Kill a process that `start` has created, together with its own children."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def node_number() -> int:
    """Which of the nodes of a Slurm job this is, from 0; one task runs on each."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def together(nodes: int) -> dict[str, str]:
    """The environment variables with which the launchers on the nodes of a Slurm job find each
    other; none for a single node."""
    if nodes == 1:
        return {}
    command = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    job = os.environ["SLURM_JOB_ID"]
    port = 20000 + int(job) % 20000  # two jobs on one node hardly ever have the same
    return {
        "RPAT_NODES": str(nodes),
        "RPAT_RENDEZVOUS": f"{done.stdout.split()[0]}:{port}",
        "RPAT_LAUNCH_ID": f"{job}-{os.environ.get('SLURM_RESTART_COUNT', '0')}",
    }


@dataclass(frozen=True)
class Work:
    """A command to run on a node, with absolute paths, or on several at once. `command` is what
    `Job.prepare` has returned."""

    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    cwd: Path
    nodes: int = 1

    @property
    def end_at_once(self) -> Path:
        """The file whose existence asks for the command to be killed."""
        return self.log.with_name("end-at-once")


def run_until_cancelled(work: Work) -> int:
    """Run the command and return its exit code. It is asked to save on SIGINT, which is how Ray
    cancels a task, and on SIGTERM, which a node's processes get at shutdown.

    When the file `end_at_once` exists, the command is killed from here: if Ray killed this process
    instead, the command, which has a session of its own, might survive.
    """
    with interrupts() as received:
        process = start(lambda: work.command, work.log, work.env, work.cwd)
        if process is None:
            return EXIT_SAVED  # another process works there: the sweep submits it again
        asked = False  # once only: on a second SIGTERM a trial stops without saving
        while process.poll() is None:
            if received and not asked:
                process.terminate()
                asked = True
            if work.end_at_once.exists():
                kill_group(process.pid)
            time.sleep(INTERVAL)
        work.end_at_once.unlink(missing_ok=True)
        return process.returncode


@dataclass
class Attempt:
    """What a Slurm job does, as submitit expects it: `checkpoint` is called when the time is up or
    the job is preempted.

    The trial is then asked to save, and the job is requeued; `again` is the pickled `Job.prepare`,
    which returns the command that resumes. For the first start the command itself is stored, since
    unpickling `again` imports torch.
    """

    work: Work
    again: bytes
    requeued: bool = False
    process: int | None = field(default=None, init=False)
    _asked: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)

    def __call__(self) -> int:
        from submitit.core.utils import UncompletedJobError

        on_sigterm(self._ask_to_save)
        # Slurm signals whole process groups; SIGTERM is the only signal meant for the trial.
        with blocked(signal.SIGUSR2, signal.SIGINT):
            env = {**self.work.env, **together(self.work.nodes)}
            process = start(self._prepare(), self._log, env, self.work.cwd)
            if process is None:
                return EXIT_SAVED  # another process works there: the sweep submits it again
            self.process = process.pid
        if self._asked:  # the request came before the process was there
            self._ask_to_save()
        try:
            self._wait()
        except UncompletedJobError as error:  # submitit has reached the limit of requeues
            self._wait()
            if process.wait() == EXIT_SAVED:
                hint = "It is saved and can be resumed; allow it more time or more requeues."
                with appending(self._log) as log:
                    log.write(f"{error} {hint}\n")
                return 1
        except subprocess.SubprocessError:
            pass  # jobs may not requeue themselves on this cluster: the sweep submits it again
        return process.wait()

    def checkpoint(self) -> "DelayedSubmission | None":
        """Called in a signal handler: let the trial save, and return what to requeue; None if it
        has ended."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self._ask_to_save()
            if self._wait() != EXIT_SAVED:
                return None
        return DelayedSubmission(replace(self, requeued=True))

    @property
    def _log(self) -> Path:
        """Of the nodes after the first, which keeps the trial's, each has a folder of its own."""
        node = node_number() if self.work.nodes > 1 else 0
        return self.work.log.parent / f"node{node}" / self.work.log.name if node else self.work.log

    def _prepare(self) -> Callable[[], tuple[str, ...]]:
        if self.work.nodes > 1 and node_number():
            return lambda: self.work.command  # the first node alone makes the folder ready
        # SLURM_RESTART_COUNT: Slurm has requeued the job by itself, after a node failure.
        if self.requeued or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            prepare: Callable[[], tuple[str, ...]] = pickle.loads(self.again)
            return prepare
        return lambda: self.work.command

    def _ask_to_save(self) -> None:
        self._asked = True
        # Once only, though the sweep asks again and again: a SIGTERM that reaches a trial which has
        # saved and is about to exit kills it, and 75 is lost.
        if self.process is not None and not self._told:
            self._told = True
            with suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGTERM)

    def _wait(self) -> int:
        """Wait for the trial but leave its exit code to be read again: in a signal handler
        `Popen.wait` would deadlock."""
        assert self.process is not None
        ended = os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # it is only with WNOHANG
        return ended.si_status
