"""Results as tables for the terminal. They are readable without color."""

from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.statistics import Accuracy, worst_class
from rpat_cli.reports.report import AttackSummary, Report, ReportRow
from rpat_cli.reports.words import class_name, show_threat
from rpat_cli.text import compact, count, counted, duration, percent, percent_range

MAX_COLUMNS = 4
"""With more attacks than this the table is transposed, to stay within 80 columns."""


def report_table(report: Report) -> Table:
    """Per checkpoint: accuracy in percent with its 95 % interval under every attack, Mean and NRR.

    Checkpoints are rows and attacks columns; with many attacks the table is transposed.
    """
    rows = report.rows
    scored = any(row.mean is not None for row in rows)
    several = len({row.threat for row in rows}) > 1
    grid = [["", *report.labels, *(("Mean", "NRR") if scored else ())]]
    grid += [_cells(row, report.labels, scored, several) for row in rows]
    if len(report.labels) > MAX_COLUMNS:
        grid = [list(column) for column in zip(*grid, strict=True)]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Test accuracy in percent ({show_threat(report.threat)})",
        title_justify="left",
    )
    for position, heading in enumerate(grid[0]):
        table.add_column(heading, justify="right" if position else "left", no_wrap=True)
    for cells in grid[1:]:
        table.add_row(*cells)
    table.min_width = 48  # room for title and caption of an empty table
    table.caption = "\n".join([_caption(rows, scored), *report.lines_below])
    table.caption_justify = "left"
    return table


def _cells(row: ReportRow, labels: Iterable[str], scored: bool, several: bool) -> list[str]:
    title = [row.checkpoint.title]
    title += [show_threat(row.threat)] if several else []
    title += ["same weights"] if row.checkpoint.same_weights else []
    scores = [percent(row.mean), percent(row.nrr)] if scored else []
    return ["\n".join(title), *(_cell(row.results.get(label)) for label in labels), *scores]


def _cell(result: AttackSummary | None) -> str:
    return _with_interval(result.accuracy) if result else percent(None)


def _with_interval(accuracy: Accuracy) -> str:
    return f"{percent(accuracy.value)}\n{percent_range(accuracy.interval)}"


def _caption(rows: tuple[ReportRow, ...], scored: bool) -> str:
    if not rows:
        return "Nothing is evaluated yet: run rpat eval"
    images: set[int] = set()
    for row in rows:
        images.update(result.accuracy.n for result in row.results.values())
    shown = " and ".join(map(count, sorted(images)))
    caption = f"Second line: 95 % interval, over {shown} test images."
    if scored:
        caption += "\nMean = (clean + AA) / 2, NRR = 2 clean AA / (clean + AA), AA = autoattack"
    return caption


def evaluation_table(evaluation: Evaluation, title: str = "") -> Table:
    """Per attack: accuracy, its interval, the images it broke, and its cost; then the worst case
    over all.

    Forward and backward passes are counted per image.
    """
    only = "only " if evaluation.limit is not None else ""
    images = f"{only}{counted(evaluation.n, 'image')}"
    threat = show_threat(evaluation.threat)
    heading = title or f"Accuracy in percent under attack ({threat}, {images})"
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left")
    for name in ("attack", "accuracy", "95 % interval", "broken", "time", "fwd / bwd"):
        is_name = name == "attack"  # a long name is wrapped
        justify: Literal["left", "right"] = "left" if is_name else "right"
        table.add_column(name, justify=justify, no_wrap=not is_name, overflow="fold")
    attacks = evaluation.attacks
    table.add_row("clean", *_accuracy(evaluation.clean), end_section=not attacks)
    for result in attacks:
        table.add_row(
            Text(result.label),
            *_accuracy(result.accuracy),
            count(evaluation.clean.correct - result.accuracy.correct),
            duration(result.seconds),
            _passes([result]),
            end_section=result is attacks[-1],
        )
    if attacks:
        broken = evaluation.clean.correct - evaluation.robust.correct
        seconds = sum(result.seconds for result in attacks)
        worst = (*_accuracy(evaluation.robust), count(broken), duration(seconds), _passes(attacks))
        table.add_row("worst case", *worst, style="bold")
    return table


def evaluation_summary(evaluation: Evaluation, class_names: Sequence[str]) -> Table:
    """Some lines below the table: how much lower AutoAttack may be, if that was audited; the worst
    class and the calibration error, in percent."""
    table = Table.grid(padding=(0, 2), pad_edge=True)
    for result in evaluation.results:
        if result.audit:
            table.add_row("audit", result.audit.headline)
    worst = worst_class(evaluation.per_class)
    if worst is not None:
        accuracy = evaluation.per_class[worst]
        text = (
            f"{class_name(class_names, worst)}: {percent(accuracy.value)} "
            f"({percent_range(accuracy.interval)})"
        )
        if evaluation.attacks:
            text += f" in the worst case, {percent(evaluation.clean_per_class[worst].value)} clean"
        table.add_row("worst class", Text(text))
    parts = {"clean": evaluation.clean_calibration}
    if strongest := evaluation.strongest:
        parts[f"under {strongest.label}"] = strongest.calibration
    if known := [f"{percent(part.ece)} {where}" for where, part in parts.items() if part]:
        table.add_row("ECE", Text(", ".join(known)))
    return table


def _passes(results: Sequence[AttackResult]) -> str:
    forward = sum(result.forward for result in results)
    backward = sum(result.backward for result in results)
    return f"{compact(forward)} / {compact(backward)}"


def _accuracy(accuracy: Accuracy) -> tuple[str, str]:
    return percent(accuracy.value), percent_range(accuracy.interval)


def evaluation_remarks(evaluation: Evaluation) -> list[str]:
    """The warnings and notes of all attacks."""
    remarks = []
    for result in evaluation.results:
        remarks += [f"{result.label}: {text}" for text in (*result.flags, *result.notes)]
    return remarks


def remarks_text(remarks: Iterable[str]) -> Text:
    """Remarks as one line each, to print below a table, as a `Text`: brackets in them are not
    markup."""
    return Text("\n".join(f"! {remark}" for remark in remarks))
