"""The folders of a sweep and of its trials: what is to be run there, how far it is, and what came
out.

sweeps/NAME/  table.{json,csv,md,tex,html}  pareto.svg
sweeps/NAME/trials/HASH/  recipe.yaml  log.txt  failure.txt  run/ (the run folder)
"""

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.records.files import write_whole
from rpat_cli.records.metrics import AVERAGED, best_record, read_metrics
from rpat_cli.records.run_folder import RunFolder, is_run
from rpat_cli.sweep.expand import Trial, checkpoints_of

SWEEPS = Path("sweeps")

TAIL = 3
"""How many of a failed trial's last log lines are shown."""

PROMPT = "$ "
"""Begins the line of the log that holds the command."""

Results = Mapping[str, Mapping[str, float]]
"""What a trial found: checkpoint ("best", "last") -> attack's label -> accuracy, a fraction."""


@dataclass(frozen=True)
class Progress:
    """How far a trial is: epochs done, validation's last accuracies (fractions) if there was one,
    seconds per epoch."""

    epoch: int
    clean_acc: float | None = None
    robust_acc: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TrialFolder:
    """One trial on disk. `path` is the folder; the run that it makes lies in `run/` within.

    With `until`, it is trained to that epoch and no further, and not evaluated: it pauses there.
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

    def prepare(self) -> tuple[str, ...]:
        """Write the recipe and return the command that trains it, or goes on with it from its last
        checkpoint.

        The command is the log's next line. Raises `RunFolderError` or `OSError` if the folder
        cannot be written.
        """
        write_whole(self.recipe, to_yaml(self.trial.recipe, self.trial.title))
        self.failure.unlink(missing_ok=True)
        if self.run.path.exists() and not is_run(self.run.path):
            shutil.rmtree(
                self.run.path
            )  # it was stopped before it had written anything that counts
        command = self.command()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{PROMPT}{shlex.join(command)}\n")
        return command

    def command(self) -> tuple[str, ...]:
        """The public command of this trial, as anybody could type it."""
        where = "--resume" if is_run(self.run.path) else "--out"
        # The engine shares out the cores among the trials: none of them takes more for its own
        # evaluation.
        options = (
            "--config",
            str(self.recipe),
            where,
            str(self.run.path),
            "--quiet",
            "--jobs",
            "1",
        )
        pause = ("--stop-after", str(self.until)) if self.until is not None else ()
        return (sys.executable, "-m", "rpat_cli", "train", *options, *pause)

    def results(self) -> Results | None:
        """What the finished trial found; None as long as anything that its recipe asks for is
        missing."""
        try:
            report = json.loads(self.run.report.read_text(encoding="utf-8"))
            trained = report["training"]["epochs"] == self.trial.recipe.epochs
            found = _accuracies(report)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        wanted = {spec.label for spec in parse_suite(self.trial.recipe.eval)}
        whole = all(
            wanted <= found.get(name, {}).keys() for name in checkpoints_of(self.trial.recipe)
        )
        return found if trained and whole else None

    def progress(self) -> Progress:
        records = read_metrics(self.run.metrics)
        if not records:
            return Progress(0)
        validated = [record["validation"] for record in records if record.get("validation")]
        last = validated[-1] if validated else {}
        seconds = sum(record["seconds"] for record in records) / len(records)
        return Progress(
            records[-1]["epoch"], last.get("clean_acc"), last.get("robust_acc"), seconds
        )

    @property
    def has_paused(self) -> bool:
        """Whether it is as far as it is to go for now."""
        return self.until is not None and self.progress().epoch >= self.until

    def figure(self, name: str, until: int | None = None) -> float | None:
        """Validation's "robust_acc", "clean_acc" or "..._wa" (fractions) at the best epoch, of
        those up to `until`.

        The best epoch is the one that the training itself chooses; None if nothing was measured
        yet.
        """
        records = read_metrics(self.run.metrics)
        if until is not None:
            records = [record for record in records if record["epoch"] <= until]
        best = best_record(records, AVERAGED if name.endswith(AVERAGED) else "")
        return None if best is None else best["validation"].get(name)

    def note_failure(self, exit_code: int) -> str:
        """Why a trial failed, with the last lines of its log; kept in `failure.txt` until it is run
        again."""
        reason = "\n".join([_reason(exit_code), *self._last_lines()])
        with suppress(OSError):  # on a full disk the reason still reaches the screen and the table
            self.failure.write_text(reason + "\n", encoding="utf-8")
        return reason

    def _last_lines(self) -> list[str]:
        """The last things that the newest attempt said."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        begins = max((n + 1 for n, line in enumerate(lines) if line.startswith(PROMPT)), default=0)
        return lines[begins:][-TAIL:]

    def earlier_failure(self) -> str:
        """The reason of the failure that an earlier call met here, or an empty string."""
        return self.failure.read_text(encoding="utf-8").strip() if self.failure.exists() else ""


def _accuracies(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of a report.json what was measured under the recipe's own threat."""
    own = report["recipe"]["threat"]
    found: dict[str, dict[str, float]] = {}
    for result in report["results"]:
        if result["threat"] is None or result["threat"] == {"norm": own["norm"], "eps": own["eps"]}:
            found.setdefault(result["checkpoint"], {})[result["label"]] = result["acc"]
    return found


def _reason(exit_code: int) -> str:
    if exit_code == 0:
        return "ended without a complete report"
    if exit_code > 0:
        return f"failed with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"killed by {name}" + (
        " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    )
