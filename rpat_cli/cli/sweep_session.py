"""The body of `rpat sweep`: plan, run, show. Imported when the command runs, since checking recipes
needs torch."""

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
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.runs.estimate import Estimate
from rpat_cli.runs.estimate import dry_run as estimate
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.engines.base import EngineSection
from rpat_cli.sweep.expand import Plan, Variant, plan_sweep
from rpat_cli.sweep.folder import SWEEPS, TrialProgress
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.search import search_for
from rpat_cli.sweep.search.base import Search
from rpat_cli.sweep.status import FINISHED, TrialState, TrialStatus
from rpat_cli.sweep.sweep_file import find_sweep
from rpat_cli.sweep.table import failures_text, indented, notes_text, sweep_table, to_json
from rpat_cli.text import count, duration, percent

REFRESH = 1.0
"""Seconds between two looks at what the running trials have written."""

ORDER = (
    TrialState.RUNNING,
    TrialState.FAILED,
    TrialState.STOPPED,
    TrialState.QUEUED,
    TrialState.WAITING,
    TrialState.DONE,
    TrialState.PRUNED,
)
"""What is shown first where not all trials fit on the screen."""


def sweep(
    *,
    name: str,
    out: Path | None,
    engine: str | None,
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
        raise ConfigError(
            "--cost goes with --dry-run: a sweep that runs says how long it will take."
        )
    path = find_sweep(name)
    plan = plan_sweep(path)
    folder = out or SWEEPS / path.stem
    section = _engine(plan, engine)
    if dry_run:
        _list(search_for(plan, folder), section.slots(jobs), cost=cost, as_json=as_json)
        return
    runner = SweepRunner(plan, folder, section.start(jobs), retries, max_failures)
    with _watching(runner, quiet=quiet or as_json):
        table = runner.run()
    if as_json:
        print(to_json(table))
    else:
        console.out.print(sweep_table(table))
        if table.notes:
            console.out.print(notes_text(table), soft_wrap=True)
        console.out.print()
        if table.failures:
            console.out.print(failures_text(table), soft_wrap=True)
        console.out.print(
            f"table: {folder / 'table.md'} (also .csv, .json, .tex, and .html with a plot)",
            markup=False,
            soft_wrap=True,
        )
    if runner.failed:
        later = (
            "The search has gone on without them."
            if runner.search.failures_are_final
            else "Call the same command again to try them once more; "
            "what is deleted there begins anew."
        )
        raise RpatError(
            f"{len(runner.failed)} of {len(runner.statuses)} trials failed; the rest is in the "
            "table. Their logs are "
            f"in {folder}/trials/*/log.txt. {later}"
        )


def _engine(plan: Plan, name: str | None) -> EngineSection:
    """What --engine says, or else the sweep file; its settings are the file's if they are of the
    same engine.

    Raises `ConfigError` for an engine that there is not.
    """
    told: EngineSection = plan.expander.spec.engine
    return told if name in (None, told.name) else ENGINES[name].model_validate({"name": name})


def _list(search: Search, slots: int, *, cost: bool, as_json: bool) -> None:
    """The trials, where each stands, its command and, if asked for, its cost."""
    statuses = list(search.statuses.values())
    costs = {variant.label: _estimated(variant) for variant in search.plan.variants} if cost else {}
    listed = [
        {
            "trial": status.trial.name,
            "title": status.trial.title,
            "state": str(status.state),
            **({"reason": status.reason} if status.reason else {}),
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
        why = f" ({status.reason.splitlines()[-1]})" if status.reason else ""
        print(f"{item['state']:<8} {item['title']}{why}\n         {item['command']}{words}")
    console.say(_totals(search))
    console.say("nothing was written: a trial's recipe.yaml comes to be when the sweep begins it")
    if cost:
        ahead = [costs[status.trial.label] for status in statuses if status.state not in FINISHED]
        known = [cost.seconds for cost in ahead if isinstance(cost, Estimate)]
        seconds = max(sum(known) / slots, max(known, default=0.0))
        without = (
            f" (without {len(ahead) - len(known)} of unknown cost)"
            if len(ahead) > len(known)
            else ""
        )
        console.say(
            f"about {duration(seconds)} to train what is not done{without}, {slots} at a time if "
            "they do not slow one "
            "another down; the final reports come on top"
        )
    else:
        console.say(
            "add --cost for the passes and the time of each: it takes a few steps of every "
            "combination"
        )


def _estimated(variant: Variant) -> Estimate | str:
    """What a training costs, or why that cannot be told: one that fails must not keep the others
    from being listed."""
    try:
        return estimate(variant.recipe)
    except RpatError as error:
        return str(error)


def _figures(cost: Estimate | str) -> dict[str, float | str]:
    """`forward` and `backward` are passes of whole batches in all steps; `seconds` is the training
    with validation."""
    if isinstance(cost, str):
        return {"unknown": cost}
    return {
        "forward": cost.forward * cost.steps,
        "backward": cost.backward * cost.steps,
        "seconds": cost.seconds,
    }


def _cost_in_words(cost: Estimate | str) -> str:
    if isinstance(cost, str):
        return f"cost unknown: {cost}"
    passes = f"{cost.forward} forward and {cost.backward} backward passes"
    return (
        f"{count(cost.steps)} steps of {passes}, about {duration(cost.seconds)} before the final "
        "report"
    )


def _totals(search: Search) -> str:
    """`6 trials: 2 waiting, 4 done; left out as equal to another combination: 3`"""
    statuses = list(search.statuses.values())
    counts = f": {_counts(statuses)}" if statuses else ""
    upcoming = f"; the search will ask for up to {search.upcoming} more" if search.upcoming else ""
    trials = "1 trial" if len(statuses) == 1 else f"{len(statuses)} trials"
    return f"{trials}{counts}{upcoming}{_doubles(search.plan)}"


def _counts(statuses: Sequence[TrialStatus]) -> str:
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in TrialState if counts[state])


def _doubles(plan: Plan) -> str:
    return (
        f"; left out as equal to another combination: {plan.duplicates}" if plan.duplicates else ""
    )


# ---- watching


@contextmanager
def _watching(runner: SweepRunner, *, quiet: bool) -> Iterator[None]:
    """A table that lives on a terminal, plain lines in a pipe or a log, nothing when quiet."""
    if quiet:
        yield
        return
    runner.on_remark = console.say
    console.say(_totals(runner.search))
    if not console.err.is_terminal:
        runner.on_change = lambda status: console.say(_line(status, runner))
        yield
        return
    with Live(console=console.err, auto_refresh=False, transient=True) as live:
        shown = 0.0

        def refresh(_: SweepRunner) -> None:
            nonlocal shown
            if time.monotonic() - shown >= REFRESH:
                live.update(_view(runner), refresh=True)
                shown = time.monotonic()

        runner.on_tick = refresh
        yield


def _line(status: TrialStatus, runner: SweepRunner) -> str:
    over = sum(other.state in (*FINISHED, TrialState.FAILED) for other in runner.statuses.values())
    text = (
        f"{time.strftime('%H:%M:%S')}  {over}/{runner.expected}  {status.state:<8} "
        f"{status.trial.title}"
    )
    if status.state is TrialState.DONE:
        return f"{text}  {_found(status)}  {duration(status.seconds)}  left {_left(runner)}"
    begins = status.state in (TrialState.QUEUED, TrialState.RUNNING)
    return f"{text}: {indented(status.reason)}" if status.reason and not begins else text


def _found(status: TrialStatus) -> str:
    last = status.results["best"] if status.results else {}
    return ", ".join(f"{label} {percent(value)}" for label, value in last.items())


def _left(runner: SweepRunner) -> str:
    """The time that is left if the rest takes as long as what this call has finished."""
    statuses = list(runner.statuses.values())
    times = [
        status.seconds for status in statuses if status.state is TrialState.DONE and status.seconds
    ]
    ahead = (TrialState.WAITING, TrialState.QUEUED, TrialState.RUNNING)
    rest = sum(status.state in ahead for status in statuses) + runner.search.upcoming
    return duration(sum(times) / len(times) * rest / runner.engine.slots) if times else "unknown"


def _view(runner: SweepRunner) -> Group:
    """All trials, as far as they fit on the screen, and totals."""
    statuses = sorted(runner.statuses.values(), key=lambda status: ORDER.index(status.state))
    room = max(3, console.err.size.height - 6)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("trial", "state", "epoch", "clean", "robust", "time", "left"):
        table.add_column(heading, justify="left" if heading in ("trial", "state") else "right")
    for status in statuses[:room]:
        table.add_row(*_view_cells(status))
    hidden = f"; {len(statuses) - room} not shown" if len(statuses) > room else ""
    return Group(table, Text(f"{_counts(statuses)}{hidden}; left {_left(runner)}"))


def _view_cells(status: TrialStatus) -> list[Text]:
    epochs, clean, robust, seconds, left = "", None, None, status.seconds, ""
    if status.state in (TrialState.RUNNING, TrialState.PRUNED):
        progress = status.folder.progress()
        epochs = f"{progress.epoch}/{status.trial.recipe.epochs}"
        clean, robust = progress.clean_acc, progress.robust_acc
        if status.state is TrialState.RUNNING:
            seconds += time.monotonic() - status.began
            left = _left_to_train(status, progress)
    elif status.results is not None:
        epochs, best = f"{status.trial.recipe.epochs}", status.results["best"]
        clean, robust = best.get("clean"), min(best.values())
    state = (
        status.state
        if status.state is not TrialState.FAILED
        else f"{status.state}: {status.reason.splitlines()[-1]}"
    )
    cells = [
        status.trial.title,
        state,
        epochs,
        percent(clean, 1),
        percent(robust, 1),
        duration(seconds) if seconds else "",
        left,
    ]
    return [Text(cell) for cell in cells]


def _left_to_train(status: TrialStatus, progress: TrialProgress) -> str:
    """Of the training; the final report, which comes on top, cannot be foretold."""
    if progress.seconds is None:
        return ""
    epochs = (status.folder.until or status.trial.recipe.epochs) - progress.epoch
    return duration(epochs * progress.seconds) if epochs > 0 else "report"
