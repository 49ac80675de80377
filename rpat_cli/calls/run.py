"""A run as Python sees it."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpat_cli.calls.html import as_html
from rpat_cli.calls.options import PathLike
from rpat_cli.loading.named import NEWEST, find_run
from rpat_cli.recipe.layers import read_recipe, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.metrics import read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.report import Report
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.runs.run_log import as_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rpat_cli.calls.model import LoadedModel


@dataclass(frozen=True)
class Run:
    """The folder of a run; printed, and shown by a notebook, as the table of its report.

    It can be given wherever a path is taken.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def folder(self) -> RunFolder:
        """Where each of its files is."""
        return RunFolder(self.path)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe. Raises `ConfigError` if it cannot be read."""
        return resolve(read_recipe(self.folder.recipe))

    @property
    def history(self) -> list[dict[str, Any]]:
        """The record of every epoch: `epoch`, `lr`, `train` and `validation` by name, fractions."""
        return read_metrics(self.folder.metrics)

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """Accuracies on the test set under the recipe's threat, as fractions: of each checkpoint
        ("best", "last", ...), by the label of the attack ("clean", "pgd-20", ...)."""
        report = self.report()
        return {
            row.checkpoint.name: {name: each.accuracy.value for name, each in row.results.items()}
            for row in report.rows
            if row.threat == report.threat
        }

    def report(self) -> Report:
        """What the folder holds now."""
        return build_report(self.folder)

    def load_model(self, checkpoint: str = "best") -> "LoadedModel":
        """The trained model, as `rpat.load_model` returns it."""
        from rpat_cli.calls.model import load_model

        return load_model(self, checkpoint)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __str__(self) -> str:
        return "\n".join([as_text(*self._parts()), f"run: {self.path}"])

    def _repr_html_(self) -> str:
        return as_html([*self._parts()])

    def _parts(self) -> "list[RenderableType]":
        report = self.report()
        return [report_table(report), remarks_text(report.remarks)]


def open_run(run: PathLike = NEWEST) -> Run:
    """The run in a folder, by its name under `runs/`, or "last", the newest one there.

    Raises `RunFolderError` for any other folder, naming near ones.
    """
    return Run(find_run(os.fspath(run)).path)
