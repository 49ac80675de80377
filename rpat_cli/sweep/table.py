"""The results of a sweep: mean and standard deviation over seeds, and the difference to the
baseline with its interval."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.evaluation.statistics import mean_acc, nrr
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.reports.markup import latex_text, markdown_block, markdown_text, one_line
from rpat_cli.reports.saved_report import AUTOATTACK, Results
from rpat_cli.sweep.cost import SweepCost
from rpat_cli.sweep.expand import Plan, Trial, Variant, checkpoints_of
from rpat_cli.sweep.folder import page_of, union_labels
from rpat_cli.sweep.intervals import Difference, Stat, paired_difference
from rpat_cli.sweep.sweep_file import SHIPPED
from rpat_cli.text import percent, signed_percent, signed_range

SCORES: Mapping[str, Callable[[float, float], float]] = {"Mean": mean_acc, "NRR": nrr}
"""Computed per trial from clean and AutoAttack accuracy, as in the paper."""

FORMAT = 1


@dataclass(frozen=True)
class TableRow:
    """One variant at one checkpoint. Accuracies are fractions; metrics without a value are left
    out of `stats`.

    `n` of `planned` trials are in it; `differences` are to the row of the variant `baseline` at the
    same checkpoint. `values` are those of each metric, by seed. `pages`: by seed, the report of
    each finished trial, relative to the table.
    """

    label: str
    checkpoint: str
    n: int
    planned: int
    stats: Mapping[str, Stat]
    baseline: str | None
    differences: Mapping[str, Difference]
    pages: Mapping[int, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepTable:
    """`failures`: the title of each failed trial, and why it failed. `notes`: remarks of a search,
    a line each.

    `source` is the sweep file, or the name of a shipped sweep; `assignments` are the `key=value`
    that the command line has set. `cost` is None where no trial has begun.
    """

    name: str
    metrics: tuple[str, ...]
    rows: tuple[TableRow, ...]
    failures: Mapping[str, str]
    notes: Sequence[str] = ()
    source: str = ""
    assignments: Sequence[str] = ()
    cost: SweepCost | None = None


def build_table(
    plan: Plan,
    results: Mapping[str, Results],
    failures: Mapping[str, str],
    notes: Sequence[str] = (),
    cost: SweepCost | None = None,
) -> SweepTable:
    """From the results of finished trials and the reasons of failures, both by the trial's name,
    the notes of a search, and what all of it has cost."""
    by_label: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        by_label.setdefault(trial.label, []).append(trial)
    metrics = _metrics(plan)
    values = {}
    for label, trials in by_label.items():
        for checkpoint in checkpoints_of(trials[0].recipe):
            values[label, checkpoint] = _by_metric(trials, results, checkpoint, metrics)
    rows = []
    for variant in plan.variants:
        for checkpoint in checkpoints_of(variant.recipe):
            rows.append(_row(variant, checkpoint, by_label[variant.label], results, values))
    titles = {trial.title: failures[trial.name] for trial in plan.trials if trial.name in failures}
    source = plan.source.stem if plan.source.parent == SHIPPED else str(plan.source)
    return SweepTable(
        plan.source.stem,
        metrics,
        tuple(rows),
        titles,
        tuple(notes),
        source,
        tuple(plan.assignments),
        cost,
    )


BySeed = dict[int, float]
"""Values of one metric, by the seed of the trial."""


def _metrics(plan: Plan) -> tuple[str, ...]:
    """The labels of all attacks, "clean" first, then Mean and NRR if AutoAttack is one of them."""
    labels = ["clean"]
    for variant in plan.variants:
        labels += [spec.label for spec in parse_suite(variant.recipe.eval)]
        labels += union_labels(variant.recipe.eval_threats)
    scores = SCORES if AUTOATTACK in labels else ()
    return (*dict.fromkeys(labels), *scores)


def _by_metric(
    trials: Sequence[Trial], results: Mapping[str, Results], checkpoint: str, metrics: Sequence[str]
) -> dict[str, BySeed]:
    """metric -> seed -> value, for the finished trials."""
    values: dict[str, BySeed] = {metric: {} for metric in metrics}
    for trial in trials:
        found = dict(results[trial.name][checkpoint]) if trial.name in results else {}
        if AUTOATTACK in found and "clean" in found:
            for name, score in SCORES.items():
                found[name] = score(found["clean"], found[AUTOATTACK])
        for metric in values.keys() & found.keys():
            values[metric][trial.seed] = found[metric]
    return values


def _row(
    variant: Variant,
    checkpoint: str,
    trials: Sequence[Trial],
    results: Mapping[str, Results],
    values: Mapping[tuple[str, str], Mapping[str, BySeed]],
) -> TableRow:
    own = values[variant.label, checkpoint]
    baseline = _baseline(variant.baseline, checkpoint, values) if variant.baseline else {}
    differences = {
        metric: paired_difference(own[metric], seeds) for metric, seeds in baseline.items()
    }
    return TableRow(
        label=variant.label,
        checkpoint=checkpoint,
        n=sum(trial.name in results for trial in trials),
        planned=len(trials),
        stats={metric: _stat(seeds) for metric, seeds in own.items() if seeds},
        baseline=variant.baseline,
        differences={metric: found for metric, found in differences.items() if found is not None},
        values={metric: seeds for metric, seeds in own.items() if seeds},
        pages={each.seed: page_of(each.name) for each in trials if each.name in results},
    )


def _stat(by_seed: BySeed) -> Stat:
    """In the order of the seeds, so that the rounding of the sum is always the same."""
    return Stat.of([by_seed[seed] for seed in sorted(by_seed)])


def _baseline(
    label: str, checkpoint: str, values: Mapping[tuple[str, str], Mapping[str, BySeed]]
) -> Mapping[str, BySeed]:
    """The baseline at the same checkpoint; if it has no averaged weights, its plain ones."""
    if (label, checkpoint) in values:
        return values[label, checkpoint]
    return values[label, checkpoint.removesuffix(AVERAGED)]


# ---- showing


def sweep_table(table: SweepTable) -> Table:
    """For the terminal: mean ± sd in percent, and below it the difference to the baseline with its
    interval."""
    shown = Table(
        box=box.SIMPLE_HEAD, title=f"{table.name}: test accuracy in percent", title_justify="left"
    )
    shown.min_width = 60  # room for the caption of a narrow table
    for heading in _headings(table):
        shown.add_column(heading, justify="left" if heading in ("", "checkpoint") else "right")
    for row in table.rows:
        cells = [_cell(row, metric, "\n") for metric in table.metrics]
        shown.add_row(Text(row.label), row.checkpoint, row_count(row), *cells)
    shown.caption = _caption(table)
    shown.caption_justify = "left"
    return shown


def failures_text(table: SweepTable) -> Text:
    """Each failed trial and its last log lines, as a `Text`: brackets in them are not markup."""
    lines = [f"! {title}: {indented(reason)}" for title, reason in table.failures.items()]
    return Text("\n".join(lines))


def notes_text(table: SweepTable) -> Text:
    """The remarks of a search, a line each."""
    return Text("\n".join(table.notes))


def indented(reason: str) -> str:
    """Several lines as one item: all but the first are indented."""
    return reason.replace("\n", "\n    ")


def _headings(table: SweepTable) -> list[str]:
    return ["", "checkpoint", "n", *table.metrics]


def row_count(row: TableRow) -> str:
    return str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}"


def _cell(row: TableRow, metric: str, between: str) -> str:
    stat = row.stats.get(metric)
    if stat is None:
        return percent(None)
    difference = row.differences.get(metric)
    return spread(stat) if difference is None else f"{spread(stat)}{between}{signed(difference)}"


def spread(stat: Stat) -> str:
    """`71.20 ± 0.35`; without the deviation below two seeds."""
    return percent(stat.mean) if stat.sd is None else f"{percent(stat.mean)} ± {percent(stat.sd)}"


def signed(difference: Difference) -> str:
    """`+0.80 [-0.10, +1.70]`; without the interval below two seeds."""
    shown = signed_percent(difference.mean)
    if difference.interval is None:
        return shown
    return f"{shown} {signed_range(difference.interval)}"


def _caption(table: SweepTable) -> str:
    parts = ["Mean over n seeds ± sample standard deviation."]
    pairs = dict.fromkeys(f"{r.label} to {r.baseline}" for r in table.rows if r.baseline)
    if pairs:
        heading = "With sign: difference [95 % t interval, paired over seeds]"
        parts.append(f"{heading}: {'; '.join(pairs)}.")
    if AUTOATTACK in table.metrics:
        parts.append("Mean = (clean + AA) / 2, NRR = 2 clean AA / (clean + AA), AA = autoattack.")
    return " ".join(parts)


# ---- writing

CSV_COLUMNS = (
    *("variant", "checkpoint", "metric", "n", "mean", "sd"),
    *("baseline", "difference", "low_95", "high_95", "pairs"),
)


def to_json(table: SweepTable) -> str:
    """Everything, as fractions."""
    return json.dumps({"format": FORMAT, **asdict(table)}, indent=1)


def to_csv(table: SweepTable) -> str:
    """One line for each variant, checkpoint and metric, as fractions; a missing value is
    empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for metric in table.metrics:
            stat, difference = row.stats.get(metric), row.differences.get(metric)
            found = [stat.n, stat.mean, stat.sd] if stat else [0, None, None]
            low, high = difference.interval if difference and difference.interval else (None, None)
            against = [difference.mean, low, high, difference.n] if difference else [None] * 4
            writer.writerow([row.label, row.checkpoint, metric, *found, row.baseline, *against])
    return out.getvalue()


def to_markdown(table: SweepTable) -> str:
    """A table in percent, its caption, and the failures."""
    lines = [
        _pipes([markdown_text(heading) for heading in _headings(table)]),
        _pipes(["---", "---", *(["---:"] * (len(table.metrics) + 1))]),
    ]
    for row in table.rows:
        cells = [_cell(row, metric, "<br>") for metric in table.metrics]
        lines.append(_pipes([markdown_text(row.label), row.checkpoint, row_count(row), *cells]))
    lines += ["", markdown_text(_caption(table))]
    if table.notes:
        lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)]
    for title, reason in table.failures.items():
        lines.append(f"\nFailed: {markdown_text(title)}\n\n{markdown_block(reason)}")
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_latex(table: SweepTable) -> str:
    """A `tabular` for the package booktabs; the difference follows the value in small type."""
    head = " & ".join(map(latex_text, _headings(table)))
    lines = [
        f"% {one_line(_caption(table))}",
        f"\\begin{{tabular}}{{ll{'r' * (len(table.metrics) + 1)}}}",
        "\\toprule",
    ]
    lines += [f"{head} \\\\", "\\midrule"]
    for row in table.rows:
        cells = [_tex_cell(row, metric) for metric in table.metrics]
        label = latex_text(row.label)
        lines.append(" & ".join([label, row.checkpoint, row_count(row), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex_cell(row: TableRow, metric: str) -> str:
    value, _, difference = latex_text(_cell(row, metric, "@")).partition("@")
    return f"{value} {{\\small ${difference}$}}" if difference else value
