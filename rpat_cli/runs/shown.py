"""What an evaluation shows, in the terminal and in a notebook: tables and remarks, in order."""

from collections.abc import Iterator

from rich.console import RenderableType

from rpat_cli.records import eval_file
from rpat_cli.reports.diagnostics_terminal import for_terminal
from rpat_cli.reports.terminal import (
    evaluation_remarks,
    evaluation_summary,
    evaluation_table,
    remarks_text,
)
from rpat_cli.reports.unions import union_table
from rpat_cli.runs.evaluate import Measured


def shown(measured: Measured) -> Iterator[RenderableType]:
    """For each threat the accuracies and what is to be known of them; the union over several; the
    diagnostics."""
    for evaluation, path in ((measured.evaluation, measured.file), *measured.others):
        yield evaluation_table(evaluation)
        written = eval_file.read(path)
        yield evaluation_summary(evaluation, written.class_names)
        yield remarks_text([*written.remarks, *evaluation_remarks(evaluation)])
    if measured.union:
        yield union_table(measured.union)
    for result in measured.diagnostics.values():
        yield for_terminal(result.section())
