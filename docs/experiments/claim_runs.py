"""What the experiment runs beside its sweeps: the longer attack and the perception diagnostic on
trials that have finished, and some trials once more.

A trial's own lock is taken, so nothing runs in a folder in which something else does; the command
and what it prints are in measure.txt there. What was interrupted goes on when it is started again.
"""

import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from claim_data import LIMIT, LONG, WIDTH, Row, collect, primary_checkpoint

from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import read_recipe, resolve
from rpat_cli.records.files import appending
from rpat_cli.records.metrics import read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.evaluations import read_evaluations
from rpat_cli.reports.saved_report import accuracies, read_saved_report
from rpat_cli.reports.training import read_checkpoints
from rpat_cli.signals import StopSignals
from rpat_cli.sweep.engines.base import Engine, Job
from rpat_cli.sweep.engines.local import LocalSection
from rpat_cli.sweep.engines.node import EXIT_SAVED, threads
from rpat_cli.sweep.folder import PROMPT, TRIALS

POLL = 0.5
"""Seconds."""

AUDITED = ("pgd", "pgd + ra")
"""Of which the plan wants an audit on all test images, at seed 0."""

RPAT = (sys.executable, "-m", "rpat_cli")

LOG = "measure.txt"

ENDS = {0: "measured", EXIT_SAVED: "stopped"}

TIMES = ("seconds", "images_per_second", "created", "time")
"""Keys of records whose values no repetition repeats."""


@dataclass(frozen=True)
class Task:
    """An evaluation that is missing."""

    row: Row
    what: tuple[str, ...]

    @property
    def title(self) -> str:
        audit = ", the audit" if "--audit" in self.what else ""
        return f"{self.row.variant}, seed {self.row.seed}{audit}"


def missing(rows: Sequence[Row], *, audits: bool) -> list[Task]:
    """`LONG` and perception of each primary checkpoint, seed by seed, then the audits, as far as
    they lack."""
    primary = [row for row in rows if row.checkpoint == primary_checkpoint(row.variant)]
    primary.sort(key=lambda row: row.seed)  # what is done at any time is whole blocks
    some = ("--perception", "--limit", str(LIMIT))
    found = [
        Task(row, ("--attack", f"{row.attack},{LONG}", *some))
        for row in primary
        if row.best_1000 is None or row.bend is None
    ]
    whole = ("--attack", LONG, "--audit", str(WIDTH))
    for row in primary if audits else ():
        if row.seed == 0 and row.variant in AUDITED and row.audited is None:
            found.append(Task(row, whole))
    return found


def measure(folder: Path, jobs: int | None, *, audits: bool) -> list[str]:
    """Run what is missing of the finished trials of a sweep, `jobs` at once, each with the threads
    that a trial of the sweep has at as many. Returns what failed or could not run, in words.

    Only trials that are in the sweep's table are touched: the sweep has ended with those, and does
    not look at them again. Raises `SystemExit` on Ctrl-C and termination signals, when all that ran
    has saved.
    """
    engine = LocalSection(name="local").start(jobs)
    queue = Queue(folder, engine, missing(collect(folder), audits=audits))
    with StopSignals() as signals:
        while signals.received is None and (queue.waiting or queue.running):
            queue.fill()
            time.sleep(POLL)
            queue.settle()
        for name in queue.running:  # asked to save, once: a second signal would not wait for it
            engine.cancel(name)
        while queue.running:
            time.sleep(POLL)
            queue.settle()
    if signals.received is not None:
        sys.exit(signals.exit_code)
    return queue.problems


@dataclass
class Queue:
    """Evaluations on an engine, one at a time in each trial's folder."""

    folder: Path
    engine: Engine
    waiting: list[Task]
    running: dict[str, Task] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def fill(self) -> None:
        """Start as many as there are free slots, of trials in which nothing of ours runs."""
        for task in list(self.waiting):
            if len(self.running) == self.engine.slots:
                return
            if task.row.trial not in self.running:
                self.waiting.remove(task)
                self._start(task)

    def _start(self, task: Task) -> None:
        home = self.folder / TRIALS / task.row.trial
        log = home / LOG
        if self.engine.submit(Job(home.name, partial(_command, task, home, log), log)):
            self.running[home.name] = task
        else:
            self.problems.append(f"{task.title}: another process works in {home}")

    def settle(self) -> None:
        """Note what has ended."""
        for ended in self.engine.poll():
            task = self.running.pop(ended.name)
            print(f"{task.title}: {ENDS.get(ended.exit_code, 'failed')}", flush=True)
            if ended.exit_code not in ENDS:
                where = self.folder / TRIALS / ended.name / LOG
                self.problems.append(f"{task.title}: exit code {ended.exit_code}, see {where}")


def _command(task: Task, home: Path, log: Path) -> tuple[str, ...]:
    how = ("--checkpoint", task.row.checkpoint, *task.what, "--jobs", "1", "--quiet")
    command = (*RPAT, "eval", str(home / "run"), *how)
    with appending(log) as file:
        file.write(f"{PROMPT}{shlex.join(command)}\n")
    return command


# ---- once more


def repeat(folder: Path, seed: int) -> tuple[str, list[str]]:
    """Train and evaluate one finished trial of a sweep again, which the seed draws, in a folder for
    the time being, with the trial's number of threads. Returns its name in words, and what is not
    the same bit for bit. Raises `RunFolderError` if no trial has finished."""
    titles = {row.trial: f"{row.variant}, seed {row.seed}" for row in collect(folder) if row.trial}
    if not titles:
        raise RunFolderError(f"{folder}: no trial has finished; go on with rpat sweep first.")
    name = random.Random(seed).choice(sorted(titles))
    before = RunFolder(folder / TRIALS / name / "run")
    recorded = torch.load(before.checkpoint("last"), weights_only=True)["environment"]
    count = int(recorded["threads"])
    with tempfile.TemporaryDirectory() as place:
        again = RunFolder(Path(place) / "run")
        files = ("--config", str(before.path.parent / "recipe.yaml"), "--out", str(again.path))
        command = (*RPAT, "train", *files, "--jobs", "1", "--quiet")
        env = {**os.environ, **threads(count)}
        code = subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode
        found = [f"it ended with exit code {code}"] if code else list(differences(before, again))
        return f"{titles[name]} ({name}, OMP_NUM_THREADS={count})", found


def differences(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """What two trainings of the same recipe have left that is not equal: the records of every
    epoch, the weights, what each evaluation found of every image, and the report's accuracies.
    Evaluations of `one` that its recipe doesn't plan, which were added later, are left out."""
    if _timeless(read_metrics(one.metrics)) != _timeless(read_metrics(other.metrics)):
        yield "the records of the epochs (metrics.jsonl)"
    for name in sorted(path.stem for path in one.checkpoint("last").parent.glob("*.pt")):
        if ".prev" not in name and not _same_weights(one.checkpoint(name), other.checkpoint(name)):
            yield f"the weights of {name}"
    suite = parse_suite(resolve(read_recipe(one.recipe)).eval)
    planned = {spec.label for spec in suite}
    first, second = (_evaluations(each, planned) for each in (one, other))
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            yield f"what {' '.join(key)} found"
    before, after = (accuracies(read_saved_report(each)) for each in (one, other))
    for name in sorted(before.keys() | after.keys()):
        values = [each.get(name, {}) for each in (before, after)]
        if any(values[0].get(label) != values[1].get(label) for label in planned):
            yield f"the report's accuracies of {name}"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _same_weights(one: Path, other: Path) -> bool:
    if not other.exists():
        return False
    first, second = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    return first.keys() == second.keys() and all(
        tensor.equal(second[name]) for name, tensor in first.items()
    )


def _evaluations(folder: RunFolder, planned: set[str]) -> dict[tuple[str, str], Any]:
    """What those of exactly the planned attacks, on all test images, have found, by checkpoint and
    attacks."""
    found = {}
    for each in read_evaluations(folder, read_checkpoints(folder), []):
        evaluation = each.evaluation
        labels = [result.label for result in evaluation.results]
        if set(labels) == planned and evaluation.limit is None:
            key = (each.file.checkpoint, ",".join(labels))
            found[key] = _timeless(evaluation.to_dict())
    return found
