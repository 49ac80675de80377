"""The results of one run or of several in one table, in the formats of texts: terminal, Markdown,
LaTeX, CSV, JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.attacks.threat import Threat
from rpat_cli.reports.markup import latex_text, markdown_text
from rpat_cli.reports.report import AttackSummary, Report
from rpat_cli.reports.words import show_threat
from rpat_cli.text import count, percent, percent_range

CSV_COLUMNS = (
    *("run", "checkpoint", "epoch", "norm", "eps", "attack", "acc", "low_95", "high_95", "n"),
    "evaluation",
)


@dataclass(frozen=True)
class Line:
    """One checkpoint of a run under one threat; its results by the attack's label."""

    run: str
    checkpoint: str
    epoch: int
    threat: Threat
    data: str
    results: Mapping[str, AttackSummary]

    @property
    def title(self) -> str:
        return f"{self.run}, {self.checkpoint}"


@dataclass(frozen=True)
class SideBySide:
    """`attacks`: the labels of all lines, "clean" first, then from weak to strong."""

    lines: tuple[Line, ...]
    attacks: tuple[str, ...]

    @property
    def several_threats(self) -> bool:
        return len({line.threat for line in self.lines}) > 1

    @property
    def caption(self) -> str:
        images = sorted({each.accuracy.n for line in self.lines for each in line.results.values()})
        threat = "" if self.several_threats or not self.lines else show_threat(self.lines[0].threat)
        shown = " and ".join(map(count, images)) or "no"
        parts = [f"Test accuracy in percent (95 % interval), over {shown} images", threat]
        return "; ".join(filter(None, parts)) + "."

    @property
    def remarks(self) -> list[str]:
        """Why lines may not be compared with one another."""
        remarks = []
        data = sorted({line.data for line in self.lines})
        if len(data) > 1:
            remarks.append(f"the runs are on different data sets: {', '.join(data)}")
        if self.several_threats:
            remarks.append("the lines are under different threats")
        return remarks

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        lines = [
            {
                "run": line.run,
                "checkpoint": line.checkpoint,
                "epoch": line.epoch,
                "threat": asdict(line.threat),
                "data": line.data,
                "results": {label: each.to_dict() for label, each in line.results.items()},
            }
            for line in self.lines
        ]
        return {"attacks": list(self.attacks), "lines": lines, "remarks": self.remarks}


def side_by_side(reports: Mapping[str, Report], checkpoint: str | None = None) -> SideBySide:
    """The reports, by the name of each, as lines; only those of one checkpoint if it is named."""
    lines: list[Line] = []
    labels: dict[str, None] = {}
    for name, report in reports.items():
        for row in report.rows:
            if checkpoint not in (None, row.checkpoint.name):
                continue
            data, threat = report.recipe.data.name, row.threat
            which = row.checkpoint.name, row.checkpoint.epoch
            lines.append(Line(name, *which, threat, data, row.results))
        labels |= dict.fromkeys(report.labels)
    shown = [label for label in labels if any(label in line.results for line in lines)]
    return SideBySide(tuple(lines), tuple(shown))


def _head(table: SideBySide) -> list[str]:
    return ["run", *(["threat"] if table.several_threats else []), *table.attacks]


def _cells(table: SideBySide, line: Line, between: str) -> list[str]:
    cells = [line.title, *([show_threat(line.threat)] if table.several_threats else [])]
    for label in table.attacks:
        found = line.results.get(label)
        if found is None:
            cells.append(percent(None))
        else:
            interval = percent_range(found.accuracy.interval)
            cells.append(f"{percent(found.accuracy.value)}{between}({interval})")
    return cells


def to_terminal(table: SideBySide) -> Table:
    """For a terminal of 80 columns: runs are rows, and with many attacks columns."""
    grid = [_head(table), *(_cells(table, line, "\n") for line in table.lines)]
    if len(table.attacks) > len(table.lines):
        grid = [list(column) for column in zip(*grid, strict=True)]
    shown = Table(box=box.SIMPLE_HEAD, caption=table.caption, caption_justify="left")
    for place, heading in enumerate(grid[0]):
        justify: Any = "right" if place else "left"
        shown.add_column(Text(heading), justify=justify, overflow="fold")
    for cells in grid[1:]:
        shown.add_row(*map(Text, cells))
    return shown


def to_markdown(table: SideBySide) -> str:
    """A table, and its caption."""
    head = _head(table)
    left = len(head) - len(table.attacks)
    rows = [head, ["---"] * left + ["---:"] * len(table.attacks)]
    text = [f"| {' | '.join(map(markdown_text, rows[0]))} |", f"| {' | '.join(rows[1])} |"]
    for line in table.lines:
        cells = [markdown_text(cell) for cell in _cells(table, line, " ")]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join([*text, "", table.caption, ""])


def to_latex(table: SideBySide) -> str:
    """A `tabular` for the package booktabs."""
    head = _head(table)
    left = len(head) - len(table.attacks)
    columns = "l" * left + "r" * len(table.attacks)
    lines = [f"% {latex_text(table.caption)}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines += [" & ".join(map(latex_text, head)) + r" \\", "\\midrule"]
    for line in table.lines:
        cells = [latex_text(cell) for cell in _cells(table, line, " ")]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def to_csv(table: SideBySide) -> str:
    """One line for each checkpoint, threat and attack, as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in table.lines:
        for label, each in line.results.items():
            threat: Sequence[Any] = (line.threat.norm, line.threat.eps) if each.threat else ("", "")
            values = (each.accuracy.value, *each.accuracy.interval, each.accuracy.n)
            where = (line.run, line.checkpoint, line.epoch)
            writer.writerow([*where, *threat, label, *values, each.evaluation])
    return out.getvalue()
