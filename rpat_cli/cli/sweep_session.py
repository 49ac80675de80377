"""The body of `rpat sweep`: plan, run, print. Imported when the command runs, since checking a
recipe needs torch."""

from collections.abc import Sequence
from pathlib import Path

from rpat_cli.cli import console
from rpat_cli.cli.sweep_list import list_trials
from rpat_cli.cli.sweep_view import watching
from rpat_cli.errors import ConfigError, Problem, RpatError
from rpat_cli.recipe.trust import HINT, trust
from rpat_cli.sweep.assignments import check_folder
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.engines.base import EngineSection
from rpat_cli.sweep.expand import Plan, plan_sweep
from rpat_cli.sweep.folder import SWEEPS
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.search import search_for
from rpat_cli.sweep.starts import RunNames
from rpat_cli.sweep.status import check_starts
from rpat_cli.sweep.sweep_file import find_sweep
from rpat_cli.sweep.table import SweepTable, failures_text, notes_text, sweep_table, to_json
from rpat_cli.tracking import chosen
from rpat_cli.user_code import speaking_on_stderr


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
    assignments: Sequence[str],
    track: Sequence[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Raises `RpatError` at the end if trials have failed: the table is written and shown first."""
    if cost and not dry_run:
        raise ConfigError("--cost needs --dry-run: a running sweep shows the time that is left.")
    path = find_sweep(name)
    folder = out or SWEEPS / path.stem
    with speaking_on_stderr():  # its plugins are run
        plan = plan_sweep(path, assignments, RunNames.of(folder))
    trackers = chosen(track)
    check_folder(folder, assignments)
    section = _engine(plan, engine)
    if dry_run:
        search = search_for(plan, folder)
        list_trials(search, section.slots(jobs), cost=cost, as_json=as_json)
        check_starts(search.statuses.values())
        return
    _check_trust(section, path)
    runner = SweepRunner(plan, folder, section.start(jobs), retries, max_failures, trackers)
    check_starts(runner.statuses.values())
    with watching(runner, quiet=quiet or as_json):
        table = runner.run()
    if as_json:
        print(to_json(table))
    else:
        _show(table, folder)
    if runner.failed:
        raise RpatError(_failure_message(runner, folder))


def _engine(plan: Plan, name: str | None) -> EngineSection:
    """The engine that --engine names, or else the sweep file. The settings are those of the file if
    it names the same engine.

    Raises `ConfigError` for an unknown engine.
    """
    in_file: EngineSection = plan.expander.spec.engine
    if name in (None, in_file.name):
        return in_file
    return ENGINES[name].model_validate({"name": name})


def _check_trust(section: EngineSection, file: Path) -> None:
    """Raise `ConfigError` for commands in the sweep file that nobody has answered for."""
    if section.code and not trust().everything:
        message = "runs code of the file's own on the cluster: {!r}."
        raise ConfigError(
            *(
                Problem(f"engine.{key}", message.format(value), str(file), HINT)
                for key, value in section.code.items()
            ),
            title="commands that you have not answered for" if len(section.code) > 1 else "",
        )


def _show(table: SweepTable, folder: Path) -> None:
    console.out.print(sweep_table(table))
    if table.notes:
        console.out.print(notes_text(table), soft_wrap=True)
    console.out.print()
    if table.failures:
        console.out.print(failures_text(table), soft_wrap=True)
    where = f"table: {folder / 'table.md'} (also .csv, .json, .tex, and .html with a plot)"
    console.out.print(where, markup=False, soft_wrap=True)


def _failure_message(runner: SweepRunner, folder: Path) -> str:
    failed = (
        f"{len(runner.failed)} of {len(runner.statuses)} trials failed; the others are in the "
        f"table. The logs are {folder}/trials/*/log.txt."
    )
    if runner.search.failures_are_final:
        return f"{failed} The search has continued without them."
    return (
        f"{failed} Run the same command again to retry them; a trial whose folder is deleted "
        "starts over."
    )
