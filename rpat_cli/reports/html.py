"""The report as one self-contained HTML file: no network, light and dark, any width. JavaScript
only adds the buttons that copy."""

import shlex
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.reports.confusion import Cell, frequent_confusions, heat_map
from rpat_cli.reports.diagnostics_page import page_sections, strips
from rpat_cli.reports.overview import facts, verdicts
from rpat_cli.reports.reliability import Reliability, reliability
from rpat_cli.reports.report import AttackSummary, Report, ReportRow
from rpat_cli.reports.training_charts import training_charts
from rpat_cli.reports.words import class_name, show_threat
from rpat_cli.text import (
    count,
    counted,
    duration,
    percent,
    percent_range,
    signed_percent,
    signed_range,
)

ALL_CLASSES = 20
"""With more classes than this only the weakest are listed."""

WEAKEST = 10

MAX_HEADLINE = 3
"""How many accuracies are shown in large type next to NRR; the others are in the table."""


@dataclass(frozen=True)
class Bar:
    """One bar of a waterfall: the images that a stage broke. `start` and `width` are fractions of
    all images."""

    name: str
    broken: int
    left: int
    start: float
    width: float
    seconds: float


@dataclass(frozen=True)
class Waterfall:
    """`before` of the images were right when the first stage began, after `what`."""

    result: AttackSummary
    title: str
    what: str
    before: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class ClassRow:
    name: str
    clean: Accuracy
    robust: Accuracy


def render_html(report: Report, baseline: Report | None = None) -> str:
    """The whole page, with the curves of a `baseline` below those of the run. External text (names,
    notes, the recipe) is escaped."""
    rows = [row for row in report.rows if row.threat == report.threat]
    head = rows[0] if rows else None
    recipe = report.recipe
    classes = class_rows(report, head)
    names = [recipe.method.name, *recipe.regularizers(), *recipe.collaborators()]
    return template("report.html.j2").render(
        report=report,
        method=" + ".join(names),
        head=head,
        verdicts=verdicts(report, head),
        facts=facts(report),
        headline=headline(head) if head else [],
        several_threats=len({row.threat for row in report.rows}) > 1,
        charts=training_charts(report, baseline),
        baseline=baseline,
        waterfalls=waterfalls(head) if head else [],
        strongest=head.strongest if head else None,
        classes=classes,
        hidden_classes=_class_count(head) - len(classes),
        **_confusion(report, head),
        calibrations=calibrations(head) if head else [],
        gallery=report.gallery and strips(report.gallery),
        diagnostics=page_sections(report.diagnostics),
        commands=_commands(report),
    )


def _commands(report: Report) -> list[str]:
    """The commands that reproduce the run and its numbers."""
    path = shlex.quote(report.path)
    recipe = shlex.quote(f"{report.path}/recipe.yaml")
    attacks = ",".join(label for label in report.labels if _can_be_typed(label))
    return [
        f"rpat train --config {recipe}",
        *([f"rpat eval {path} --attack {attacks}"] if attacks else []),
    ]


def _can_be_typed(label: str) -> bool:
    """Whether a label can be given to `--attack`. Labels of suite files may not, and that of a
    transfer attack names the other model, not its path."""
    try:
        return not label.startswith("transfer:") and parse_suite(label)[0].label == label
    except ConfigError:
        return False


@cache
def template(name: str) -> Template:
    """A template of this package, with the filters that format numbers. Other pages extend that of
    the report."""
    loader = PackageLoader("rpat_cli", "reports/templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "percent_range": percent_range,
        "signed_percent": signed_percent,
        "signed_range": signed_range,
        "duration": duration,
        "count": count,
        "counted": counted,
        "show_threat": show_threat,
    }
    return environment.get_template(name)


def headline(row: ReportRow) -> list[AttackSummary]:
    """The accuracies in large type: clean, PGD and the strongest attack, or all of them if there
    are at most three."""
    if len(row.results) <= MAX_HEADLINE:
        return list(row.results.values())
    pgd = min(
        (f for f in row.results.values() if f.attack == "pgd"),
        key=lambda f: f.accuracy.value,
        default=None,
    )
    chosen = {id(result) for result in (row.results["clean"], pgd, row.strongest)}
    return [result for result in row.results.values() if id(result) in chosen]


def waterfalls(row: ReportRow) -> list[Waterfall]:
    """For every attack that consists of several: how many images each of them broke, in order."""
    found = []
    for result in row.results.values():
        if len(result.stages) > 1:
            title = f"{result.label} on {row.checkpoint.title}"
            what = "the other attacks" if result.audit else "clean"
            before = result.accuracy.correct + sum(stage.broken for stage in result.stages)
            found.append(Waterfall(result, title, what, before, _bars(result)))
    return found


def _bars(result: AttackSummary) -> tuple[Bar, ...]:
    n = result.accuracy.n
    # From the end: an audit attacks a sample, and does not say how many were right before.
    left = result.accuracy.correct + sum(stage.broken for stage in result.stages)
    bars = []
    for stage in result.stages:
        left -= stage.broken
        bars.append(Bar(stage.name, stage.broken, left, left / n, stage.broken / n, stage.seconds))
    return tuple(bars)


def class_rows(report: Report, row: ReportRow | None) -> list[ClassRow]:
    """Clean and robust accuracy (under the strongest attack) per class, the weakest first."""
    if row is None or row.strongest is None:
        return []
    clean, robust = row.results["clean"].per_class, row.strongest.per_class
    rows = []
    for k, (before, after) in enumerate(zip(clean, robust, strict=False)):
        if before.n and after.n:
            rows.append(ClassRow(class_name(report.class_names, k), before, after))
    # The sort is stable: of equals the first label comes first, as in `worst_class`.
    rows.sort(key=lambda item: item.robust.value)
    return rows if len(rows) <= ALL_CLASSES else rows[:WEAKEST]


def _confusion(report: Report, row: ReportRow | None) -> dict[str, list[list[Cell]] | list[Cell]]:
    """Under the strongest attack: a heat map, or with many classes the most frequent confusions."""
    if row is None or row.strongest is None:
        return {"heat": [], "confusions": []}
    counts, names = row.strongest.confusion, report.class_names
    if len(counts) <= ALL_CLASSES:
        return {"heat": heat_map(counts, names), "confusions": []}
    return {"heat": [], "confusions": frequent_confusions(counts, names)}


def calibrations(row: ReportRow) -> list[Reliability]:
    """Without an attack and under the strongest one, where confidences were recorded."""
    pairs = [("Clean", "clean", row.results["clean"])]
    if row.strongest:
        pairs.append((f"Under {row.strongest.label}", "robust", row.strongest))
    return [
        reliability(title, kind, found.calibration)
        for title, kind, found in pairs
        if found.calibration
    ]


def _class_count(row: ReportRow | None) -> int:
    if row is None or row.strongest is None:
        return 0
    return sum(1 for accuracy in row.strongest.per_class if accuracy.n)
