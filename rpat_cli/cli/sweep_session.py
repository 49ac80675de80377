"""The body of `rpat sweep`: plan, run, show. Imported when the command runs, since checking recipes needs torch."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rpat_cli.cli import console
from rpat_cli.dry_run import Estimate
from rpat_cli.dry_run import dry_run as estimate
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.reports.scores import count, duration, percent
from rpat_cli.sweep.engines.local import Local, local_slots, usable_cores, visible_gpus
from rpat_cli.sweep.expand import Plan, plan_sweep
from rpat_cli.sweep.folder import SWEEPS
from rpat_cli.sweep.runner import Runner, State, Status, look
from rpat_cli.sweep.spec import find_sweep
from rpat_cli.sweep.table import failures_text, sweep_table, to_json

REFRESH = 1.0
"""Seconds between two looks at what the running trials have written."""

ORDER = (State.RUNNING, State.FAILED, State.STOPPED, State.WAITING, State.DONE)
"""What is shown first where not all trials fit on the screen."""


def sweep(
    *,
    name: str,
    out: Path | None,
    jobs: int | None,
    dry_run: bool,
    cost: bool,
    retries: int,
    max_failures: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Raises `RpatError` at the end if trials have failed: the table is written and shown first."""
    if cost and not dry_run:
        raise ConfigError("--cost goes with --dry-run: a sweep that runs says how long it will take.")
    path = find_sweep(name)
    plan = plan_sweep(path)
    folder = out or SWEEPS / path.stem
    slots = local_slots(jobs, visible_gpus(), usable_cores())
    if dry_run:
        _list(plan, look(plan, folder), len(slots), cost=cost, as_json=as_json)
        return
    runner = Runner(plan, folder, Local(slots), retries, max_failures)
    with _watching(runner, quiet=quiet or as_json):
        table = runner.run()
    if as_json:
        print(to_json(table))
    else:
        console.out.print(sweep_table(table))
        console.out.print(failures_text(table))
        console.out.print(f"table: {folder / 'table.md'} (also .csv, .json, .tex)", markup=False, soft_wrap=True)
    if runner.failed:
        raise RpatError(
            f"{len(runner.failed)} of {len(plan.trials)} trials failed; the rest is in the table. Their logs are in "
            f"{folder}/trials/*/log.txt. Call the same command again to try them once more."
        )


def _list(plan: Plan, statuses: Sequence[Status], slots: int, *, cost: bool, as_json: bool) -> None:
    """The trials, where each stands, its command and, if asked for, its cost."""
    costs = {variant.label: estimate(variant.recipe) for variant in plan.variants} if cost else {}
    listed = [
        {
            "trial": status.trial.name,
            "title": status.trial.title,
            "state": str(status.state),
            "command": shlex.join(("rpat", *status.folder.command()[3:])),
            **({"cost": _figures(costs[status.trial.label])} if cost else {}),
        }
        for status in statuses
    ]
    if as_json:
        print(json.dumps(listed, indent=1))
        return
    for item, status in zip(listed, statuses, strict=True):
        words = f"\n         {_cost_in_words(costs[status.trial.label])}" if cost else ""
        print(f"{item['state']:<8} {item['title']}\n         {item['command']}{words}")
    console.say(f"{len(statuses)} trials: {_counts(statuses)}{_doubles(plan)}")
    console.say("nothing was written: a trial's recipe.yaml comes to be when the sweep begins it")
    if cost:
        seconds = sum(costs[s.trial.label].seconds for s in statuses if s.state is not State.DONE)
        console.say(
            f"about {duration(seconds / slots)} to train what is not done, {slots} at a time if they do not slow one "
            "another down; the final reports come on top"
        )


def _figures(cost: Estimate) -> dict[str, float]:
    """`forward` and `backward` are passes of whole batches in all steps; `seconds` is the training with validation."""
    return {"forward": cost.forward * cost.steps, "backward": cost.backward * cost.steps, "seconds": cost.seconds}


def _cost_in_words(cost: Estimate) -> str:
    passes = f"{cost.forward} forward and {cost.backward} backward passes"
    return f"{count(cost.steps)} steps of {passes}, about {duration(cost.seconds)} before the final report"


def _counts(statuses: Sequence[Status]) -> str:
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state])


def _doubles(plan: Plan) -> str:
    return f"; {plan.doubles} combinations equal another one and are left out" if plan.doubles else ""


# ---------------------------------------------------------------------------------------------- watching


@contextmanager
def _watching(runner: Runner, *, quiet: bool) -> Iterator[None]:
    """A table that lives on a terminal, plain lines in a pipe or a log, nothing when quiet."""
    if quiet:
        yield
        return
    runner.on_remark = console.say
    console.say(f"{len(runner.statuses)} trials: {_counts(list(runner.statuses.values()))}{_doubles(runner.plan)}")
    if not console.err.is_terminal:
        runner.on_change = lambda status: console.say(_line(status, runner))
        yield
        return
    with Live(console=console.err, auto_refresh=False, transient=True) as live:
        shown = 0.0

        def refresh(_: Runner) -> None:
            nonlocal shown
            if time.monotonic() - shown >= REFRESH:
                live.update(_view(runner), refresh=True)
                shown = time.monotonic()

        runner.on_tick = refresh
        yield


def _line(status: Status, runner: Runner) -> str:
    statuses = runner.statuses.values()
    over = sum(other.state in (State.DONE, State.FAILED) for other in statuses)
    text = f"{time.strftime('%H:%M:%S')}  {over}/{len(statuses)}  {status.state:<8} {status.trial.title}"
    if status.state is State.DONE:
        return f"{text}  {_found(status)}  {duration(status.seconds)}  left {_left(runner)}"
    return f"{text}: {status.reason}" if status.state in (State.FAILED, State.WAITING) else text


def _found(status: Status) -> str:
    last = status.results["best"] if status.results else {}
    return ", ".join(f"{label} {percent(value)}" for label, value in last.items())


def _left(runner: Runner) -> str:
    """The time that is left if the rest takes as long as what this call has finished."""
    statuses = list(runner.statuses.values())
    times = [status.seconds for status in statuses if status.state is State.DONE and status.seconds]
    rest = sum(status.state in (State.WAITING, State.RUNNING) for status in statuses)
    return duration(sum(times) / len(times) * rest / runner.engine.slots) if times else "unknown"


def _view(runner: Runner) -> Group:
    """All trials, as far as they fit on the screen, and totals."""
    statuses = sorted(runner.statuses.values(), key=lambda status: ORDER.index(status.state))
    room = max(3, console.err.size.height - 6)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("trial", "state", "epoch", "clean", "robust", "time"):
        table.add_column(heading, justify="left" if heading in ("trial", "state") else "right")
    for status in statuses[:room]:
        table.add_row(*_view_cells(status))
    hidden = f"; {len(statuses) - room} not shown" if len(statuses) > room else ""
    return Group(table, Text(f"{_counts(statuses)}{hidden}; left {_left(runner)}"))


def _view_cells(status: Status) -> list[Text]:
    epochs, clean, robust, seconds = "", None, None, status.seconds
    if status.state is State.RUNNING:
        progress = status.folder.progress()
        epochs = f"{progress.epoch}/{status.trial.recipe.epochs}"
        clean, robust = progress.clean_acc, progress.robust_acc
        seconds += time.monotonic() - status.began
    elif status.results is not None:
        epochs, best = f"{status.trial.recipe.epochs}", status.results["best"]
        clean, robust = best.get("clean"), min(best.values())
    state = status.state if status.state is not State.FAILED else f"{status.state}: {status.reason.splitlines()[-1]}"
    cells = [status.trial.title, state, epochs, percent(clean, 1), percent(robust, 1), duration(seconds)]
    return [Text(cell) for cell in cells]
