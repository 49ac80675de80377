"""The bodies of `rpat report` and `rpat leaderboard`. Imported when one runs, since it needs
torch."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.attacks.threat import GEOMETRIES
from rpat_cli.cli import console
from rpat_cli.errors import ConfigError, Problem, RpatError, unknown
from rpat_cli.loading.named import find_run, find_runs
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.records.files import user_path
from rpat_cli.records.run_folder import RunFolder, is_run
from rpat_cli.reports import leaderboard as board
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.report import Report
from rpat_cli.reports.side_by_side import (
    side_by_side,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.reports.write import write_report
from rpat_cli.runs.listing import list_runs
from rpat_cli.text import percent, show_number
from rpat_cli.user_code import speaking_on_stderr

TEXTS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}

ALL_CHECKPOINTS = "all"


def report(
    names: Sequence[str],
    checkpoint: str | None,
    form: str,
    *,
    baseline: str | None,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """`rpat report`: pages of each run, one table of all."""
    folders = _folders(names)
    with speaking_on_stderr():
        load_plugins((file, "--plugin") for file in plugins)
        below = None if baseline is None else build_report(find_run(baseline))
        reports = {name: write_report(folder, below) for name, folder in folders.items()}
    if checkpoint is None:
        checkpoint = "best" if len(reports) > 1 else ALL_CHECKPOINTS
    table = side_by_side(reports, None if checkpoint == ALL_CHECKPOINTS else checkpoint)
    if as_json:
        pages = {name: str(folder.html) for name, folder in folders.items()}
        print(json.dumps({**table.to_dict(), "pages": pages}))
        return
    if form in TEXTS:
        print(TEXTS[form](table), end="")
    elif len(reports) == 1 and checkpoint == ALL_CHECKPOINTS:
        (only,) = reports.values()
        console.out.print(report_table(only))
        console.out.print(remarks_text(only.remarks))
    else:
        console.out.print(to_terminal(table))
    _say(reports, folders, table.remarks)


def _say(
    reports: Mapping[str, Report], folders: Mapping[str, RunFolder], remarks: Sequence[str]
) -> None:
    """On stderr, which keeps tables in pipes clean."""
    for remark in remarks:
        console.say(f"! {remark}")
    for name, each in reports.items():
        if not each.rows:
            console.say(f"! {name} has not been evaluated yet: rpat eval {each.path}")
    for folder in folders.values():
        console.say(f"report: {folder.html}")


def _folders(names: Sequence[str]) -> dict[str, RunFolder]:
    """The runs that are named, and those in folders that are named, by how they are shown."""
    found: list[RunFolder] = []
    single: list[str] = []
    for name in names:
        path = user_path(name)
        inside = [] if is_run(path) or not path.is_dir() else list_runs(path)
        found += [RunFolder(Path(run.path)) for run in inside]
        single += [] if inside else [name]
    found += find_runs(single)
    unique = {folder.path.resolve(): folder for folder in found}
    paths = [str(path) for path in unique]
    root = os.path.commonpath([str(Path(path).parent) for path in paths])
    return {os.path.relpath(path, root): folder for path, folder in unique.items()}


def leaderboard(
    run: str | None,
    data: str | None,
    norm: str | None,
    extra: str,
    top: int,
    *,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """`rpat leaderboard`: entries, and where a run would be among them."""
    report = None
    if run is not None:
        with speaking_on_stderr():
            load_plugins((file, "--plugin") for file in plugins)
            report = build_report(find_run(run))
        data, norm = data or report.recipe.data.name, norm or report.threat.norm
    data, norm = (data or "cifar10").lower(), GEOMETRIES.spelled(norm or "Linf")
    _check_board(data, norm, "" if report is None else report.path)
    chosen = board.entries(data, norm, extra)
    standings = _standings_on(report, data, norm)
    if as_json:
        listed = [asdict(entry) for entry in chosen[:top]]
        places = [standing.to_dict() for standing in standings]
        about = {"source": board.SOURCE, "date": board.DATE, "among": len(chosen)}
        print(json.dumps({**about, "entries": listed, "standings": places}))
        return
    console.out.print(_board_table(chosen[:top]))
    eps = show_number(board.boards()[data, norm])
    shown = f"{min(top, len(chosen))} of {len(chosen)} entries, {data}, {norm} {eps}"
    console.say(f"{shown}; {board.SOURCE}, {board.DATE}")
    if any(entry.unreliable for entry in chosen[:top]):
        console.say("*: flagged there as an evaluation that may overestimate")
    if report is not None:
        _say_places(standings)


def _standings_on(report: Report | None, data: str, norm: str) -> list[board.Standing]:
    """Those on the leaderboard that is shown."""
    found = [] if report is None else report.standings
    return [each for each in found if (each.dataset, each.norm) == (data, norm)]


def _say_places(standings: Sequence[board.Standing]) -> None:
    for standing in standings:
        console.out.print(standing.line, markup=False, soft_wrap=True)
    if not standings:
        console.say(
            "! this run cannot be placed here: run AutoAttack on all of its test images, under the "
            "threat of this leaderboard: rpat eval --attack autoattack"
        )


def _check_board(data: str, norm: str, run: str) -> None:
    boards = board.boards()
    if run and (data, norm) not in boards:
        known = ", ".join(f"{name} {each}" for name, each in boards)
        raise RpatError(
            f"{run}: RobustBench has no leaderboard of {data} under {norm}. It has: {known}."
        )
    names = list(dict.fromkeys(name for name, _ in boards))
    norms = [each for name, each in boards if name == data]
    if data not in names:
        raise ConfigError(Problem("", unknown("leaderboard", data, names), "--data"))
    if norm not in norms:
        raise ConfigError(Problem("", unknown(f"threat of {data}", norm, norms), "--norm"))


def _board_table(entries: Sequence[board.Entry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("entry", overflow="fold")
    table.add_column("network", overflow="fold")
    for name in ("clean", "robust"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("extra data", no_wrap=True)
    for place, entry in enumerate(entries, start=1):
        mark = "*" if entry.unreliable else ""
        table.add_row(
            str(place),
            Text(entry.name + mark),
            Text(entry.architecture),
            percent(entry.clean_acc),
            percent(entry.robust_acc),
            "yes" if entry.additional_data else "no",
        )
    return table
