"""The searches: which trials of a sweep are run, in which order, and for how many epochs."""

from collections.abc import Callable
from pathlib import Path

from rpat_cli.registry import Registry
from rpat_cli.sweep.expand import Plan
from rpat_cli.sweep.search.base import Search

SEARCHES: Registry[Callable[[Plan, Path], Search]] = Registry(
    "search",
    {
        "everything": "rpat_cli.sweep.search.base:Everything",
        "asha": "rpat_cli.sweep.search.asha:Asha",
        "optuna": "rpat_cli.sweep.search.optuna_search:OptunaSearch",
    },
)


def search_for(plan: Plan, folder: Path) -> Search:
    """The search that a sweep file names, resumed from the sweep's folder. Writes nothing yet.

    Raises `ConfigError` for settings that do not fit the recipes or the folder, and
    `MissingExtraError`.
    """
    return SEARCHES[plan.search.name if plan.search else "everything"](plan, folder)
