"""Many runs in a table, one line each: for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.text import DASH, percent


class Listed(Protocol):
    """What a line says of a run: see `rpat_cli.runs.listing.RunSummary`."""

    @property
    def path(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def epochs_planned(self) -> int | None: ...
    @property
    def clean_acc(self) -> float | None: ...
    @property
    def robust_acc(self) -> float | None: ...
    @property
    def attack(self) -> str: ...


def runs_table(runs: Sequence[Listed], root: Path) -> Table:
    """Names, how far each is, and accuracies in percent. A name is folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("run", overflow="fold", no_wrap=False, min_width=20)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("clean", "robust"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("attack", overflow="fold")
    for run in runs:
        planned = "?" if run.epochs_planned is None else run.epochs_planned
        table.add_row(
            Text(_name(run, root)),
            f"{run.epochs}/{planned}",
            run.state,
            percent(run.clean_acc),
            percent(run.robust_acc),
            Text(run.attack or DASH),
        )
    return table


def _name(run: Listed, root: Path) -> str:
    path = Path(run.path)
    return str(path.relative_to(root)) if path.is_relative_to(root) and path != root else run.path
