"""The folders of a sweep and of its trials: the command to run there, its progress and results.

sweeps/NAME/  table.{json,csv,md,tex,html}  pareto.svg  starts.json
sweeps/NAME/trials/HASH/  recipe.yaml  log.txt  failure.txt  run/ (the run folder)
"""

import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rpat_cli.attacks.threat import parse_threat
from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.trust import FLAG, trust
from rpat_cli.records.files import appending, write_whole
from rpat_cli.records.metrics import AVERAGED, best_record, read_metrics
from rpat_cli.records.regular import read_regular
from rpat_cli.records.run_folder import RunFolder, is_run
from rpat_cli.reports.saved_report import (
    DAMAGE,
    UNION,
    Results,
    accuracies,
    read_saved_report,
    threat_label,
)
from rpat_cli.sweep.expand import Trial, checkpoints_of
from rpat_cli.tracking import FLAG as TRACK
from rpat_cli.tracking import Choice

SWEEPS = Path("sweeps")

TRIALS = "trials"

TAIL = 3
"""How many of a failed trial's last log lines are shown."""

PROMPT = "$ "
"""Start of the log line that holds the command."""


def page_of(name: str) -> str:
    """Where the report's page of a trial is, seen from the folder of the sweep."""
    return RunFolder(Path(TRIALS) / name / "run").html.as_posix()


@dataclass(frozen=True)
class TrialProgress:
    """How far a trial is: epochs done, accuracies of the last validation (fractions) if there was
    one, seconds per epoch."""

    epoch: int
    clean_acc: float | None = None
    robust_acc: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TrialFolder:
    """One trial on disk. `path` is its folder, which holds the run folder `run/`.

    With `until` it is trained up to that epoch and not evaluated: it pauses there.
    """

    trial: Trial
    path: Path
    until: int | None = None

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path / "run")

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def failure(self) -> Path:
        return self.path / "failure.txt"

    def prepare(self, trackers: Sequence[Choice] = ()) -> tuple[str, ...]:
        """Write the recipe and return the command that trains it, or resumes it from its last
        checkpoint.

        The command is the log's next line. Raises `RunFolderError` or `OSError` if the folder
        cannot be written.
        """
        write_whole(self.recipe, to_yaml(self.trial.recipe, self.trial.title))
        self.failure.unlink(missing_ok=True)
        if self.run.path.exists() and not is_run(self.run.path):
            shutil.rmtree(self.run.path)  # stopped before anything useful was written
        command = (*self.command(), *(f"{TRACK}={choice}" for choice in trackers))
        with appending(self.log) as log:
            log.write(f"{PROMPT}{shlex.join(command)}\n")
        return command

    def command(self) -> tuple[str, ...]:
        """The public command of this trial, which can also be typed by hand."""
        where = "--resume" if is_run(self.run.path) else "--out"
        files = ("--config", str(self.recipe), where, str(self.run.path))
        # The engine divides the cores among the trials: none may use more for its evaluation.
        options = ("--quiet", "--jobs", "1")
        pause = ("--stop-after", str(self.until)) if self.until is not None else ()
        # Whoever allowed the sweep to run this code has allowed it to its trials.
        code = [f"--plugin={plugin}" for plugin in self.trial.recipe.plugins]
        if trust().everything:
            code.append(FLAG)
        return (sys.executable, "-m", "rpat_cli", "train", *files, *options, *pause, *code)

    def results(self) -> Results | None:
        """The results of a finished trial; None while anything that its recipe asks for is
        missing."""
        try:
            report = read_saved_report(self.run)
            trained = report["training"]["epochs"] == self.trial.recipe.epochs
            found = accuracies(report)
        except DAMAGE:
            return None
        wanted = {spec.label for spec in parse_suite(self.trial.recipe.eval)}
        wanted |= set(union_labels(self.trial.recipe.eval_threats))
        checkpoints = checkpoints_of(self.trial.recipe)
        complete = all(wanted <= found.get(name, {}).keys() for name in checkpoints)
        return found if trained and complete else None

    def progress(self) -> TrialProgress:
        records = read_metrics(self.run.metrics)
        if not records:
            return TrialProgress(0)
        validated = [record["validation"] for record in records if record.get("validation")]
        last = validated[-1] if validated else {}
        seconds = sum(record["seconds"] for record in records) / len(records)
        return TrialProgress(
            records[-1]["epoch"], last.get("clean_acc"), last.get("robust_acc"), seconds
        )

    @property
    def has_paused(self) -> bool:
        """Whether it has reached the epoch `until`."""
        return self.until is not None and self.progress().epoch >= self.until

    def metric(self, name: str, until: int | None = None) -> float | None:
        """The validation metric "robust_acc", "clean_acc" or "..._wa" (a fraction) at the best
        epoch up to `until`.

        The best epoch is the one that the training itself selects; None if nothing is measured yet.
        """
        records = read_metrics(self.run.metrics)
        if until is not None:
            records = [record for record in records if record["epoch"] <= until]
        best = best_record(records, AVERAGED if name.endswith(AVERAGED) else "")
        return None if best is None else best["validation"].get(name)

    def note_failure(self, exit_code: int) -> str:
        """Return why a trial failed, with the last lines of its log, and keep it in `failure.txt`
        until the trial is run again."""
        reason = "\n".join([_reason(exit_code), *self._last_lines()])
        # On a full disk the reason is still shown and in the table.
        with suppress(RunFolderError):
            write_whole(self.failure, reason + "\n")
        return reason

    def _last_lines(self) -> list[str]:
        """The last log lines of the newest attempt."""
        try:
            text = read_regular(self.log).decode("utf-8", errors="replace")
        except OSError:
            return []
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        commands = [number for number, line in enumerate(lines) if line.startswith(PROMPT)]
        newest = lines[commands[-1] + 1 :] if commands else lines
        return newest[-TAIL:]

    def earlier_failure(self) -> str:
        """The reason of a failure in an earlier call, or an empty string."""
        try:
            return read_regular(self.failure).decode("utf-8", errors="replace").strip()
        except OSError:
            return ""


def union_labels(threats: Sequence[str]) -> list[str]:
    """The metrics that several threats of a recipe's `eval_threats` add: the worst case under each,
    and the union of all."""
    labels = [threat_label(*parsed) for parsed in dict.fromkeys(map(parse_threat, threats))]
    return [*labels, UNION] if len(labels) > 1 else []


def _reason(exit_code: int) -> str:
    if exit_code == 0:
        return "ended without a complete report"
    if exit_code > 0:
        return f"failed with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    likely_cause = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return f"killed by {name}{likely_cause}"
