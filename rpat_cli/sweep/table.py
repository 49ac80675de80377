"""The results of a sweep: mean and spread over seeds, and the difference to the baseline with its
interval."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.reports.scores import DASH, mean_acc, nrr, percent
from rpat_cli.sweep.expand import Plan, Trial, Variant, checkpoints_of
from rpat_cli.sweep.folder import Results
from rpat_cli.sweep.intervals import Difference, Stat, paired_difference
from rpat_cli.sweep.spec import SHIPPED

AUTOATTACK = "autoattack"
SCORES: Mapping[str, Callable[[float, float], float]] = {"Mean": mean_acc, "NRR": nrr}
"""Computed per trial from clean and AutoAttack accuracy, as the paper has them."""

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One variant at one checkpoint. Accuracies are fractions; `metrics` without a value are left
    out.

    `n` of `planned` trials are in it; `differences` are to the row of the variant `baseline` at the
    same checkpoint.
    """

    label: str
    checkpoint: str
    n: int
    planned: int
    stats: Mapping[str, Stat]
    baseline: str | None
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class SweepTable:
    """`failures`: the title of each trial that failed, and why. `notes`: what a search has to say,
    a line each.

    `source` is the sweep file, or the name of a shipped sweep.
    """

    name: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: Mapping[str, str]
    notes: Sequence[str] = ()
    source: str = ""


def build_table(
    plan: Plan,
    results: Mapping[str, Results],
    failures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> SweepTable:
    """From what each finished trial found and why others failed, both by the trial's name, and a
    search's notes."""
    by_label: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        by_label.setdefault(trial.label, []).append(trial)
    metrics = _metrics(plan)
    values = {
        (label, checkpoint): _by_metric(trials, results, checkpoint, metrics)
        for label, trials in by_label.items()
        for checkpoint in checkpoints_of(trials[0].recipe)
    }
    rows = tuple(
        _row(variant, checkpoint, by_label[variant.label], results, values)
        for variant in plan.variants
        for checkpoint in checkpoints_of(variant.recipe)
    )
    titles = {trial.title: failures[trial.name] for trial in plan.trials if trial.name in failures}
    source = plan.source.stem if plan.source.parent == SHIPPED else str(plan.source)
    return SweepTable(plan.source.stem, metrics, rows, titles, tuple(notes), source)


BySeed = dict[int, float]


def _metrics(plan: Plan) -> tuple[str, ...]:
    """The labels of all attacks, "clean" first, then Mean and NRR where they can be had."""
    specs = (spec for variant in plan.variants for spec in parse_suite(variant.recipe.eval))
    labels = dict.fromkeys(["clean", *(spec.label for spec in specs)])
    return (*labels, *(SCORES if AUTOATTACK in labels else ()))


def _by_metric(
    trials: Sequence[Trial], results: Mapping[str, Results], checkpoint: str, metrics: Sequence[str]
) -> dict[str, BySeed]:
    """metric -> seed -> value, of the trials that are finished."""
    values: dict[str, BySeed] = {metric: {} for metric in metrics}
    for trial in trials:
        found = dict(results[trial.name][checkpoint]) if trial.name in results else {}
        if AUTOATTACK in found and "clean" in found:
            found |= {
                name: score(found["clean"], found[AUTOATTACK]) for name, score in SCORES.items()
            }
        for metric in values.keys() & found.keys():
            values[metric][trial.seed] = found[metric]
    return values


def _row(
    variant: Variant,
    checkpoint: str,
    trials: Sequence[Trial],
    results: Mapping[str, Results],
    values: Mapping[tuple[str, str], Mapping[str, BySeed]],
) -> Row:
    own = values[variant.label, checkpoint]
    baseline = _baseline(variant.baseline, checkpoint, values) if variant.baseline else {}
    differences = {
        metric: paired_difference(own[metric], seeds) for metric, seeds in baseline.items()
    }
    return Row(
        label=variant.label,
        checkpoint=checkpoint,
        n=sum(trial.name in results for trial in trials),
        planned=len(trials),
        stats={
            metric: Stat.of([seeds[seed] for seed in sorted(seeds)])
            for metric, seeds in own.items()
            if seeds
        },
        baseline=variant.baseline,
        differences={metric: found for metric, found in differences.items() if found is not None},
    )


def _baseline(
    label: str, checkpoint: str, values: Mapping[tuple[str, str], Mapping[str, BySeed]]
) -> Mapping[str, BySeed]:
    """The baseline at the same checkpoint; averaged weights compare with plain ones where it
    averages none."""
    same = values.get((label, checkpoint))
    return same if same is not None else values[label, checkpoint.removesuffix(AVERAGED)]


# ---- showing


def sweep_table(table: SweepTable) -> Table:
    """For the terminal: mean ± sd in per cent, and below it the difference to the baseline with its
    interval."""
    shown = Table(
        box=box.SIMPLE_HEAD, title=f"{table.name}: test accuracy in per cent", title_justify="left"
    )
    shown.min_width = 60  # room for the caption of a narrow table
    for heading in _headings(table):
        shown.add_column(heading, justify="left" if heading in ("", "checkpoint") else "right")
    for row in table.rows:
        cells = [_cell(row, metric, "±", "\n") for metric in table.metrics]
        shown.add_row(Text(row.label), row.checkpoint, row_count(row), *cells)
    shown.caption = _caption(table)
    shown.caption_justify = "left"
    return shown


def failures_text(table: SweepTable) -> Text:
    """Each failed trial and its last log lines (a `Text`: brackets in them are no markup)."""
    return Text(
        "\n".join(f"! {title}: {indented(reason)}" for title, reason in table.failures.items())
    )


def notes_text(table: SweepTable) -> Text:
    """What a search has to say, a line each."""
    return Text("\n".join(table.notes))


def indented(reason: str) -> str:
    """Several lines as one item: all but the first are moved in."""
    return reason.replace("\n", "\n    ")


def _headings(table: SweepTable) -> list[str]:
    return ["", "checkpoint", "n", *table.metrics]


def row_count(row: Row) -> str:
    return str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}"


def _cell(row: Row, metric: str, plus_minus: str, between: str) -> str:
    stat = row.stats.get(metric)
    if stat is None:
        return percent(None)
    value = percent(stat.mean) + (
        f" {plus_minus} {percent(stat.sd)}" if stat.sd is not None else ""
    )
    difference = row.differences.get(metric)
    return value if difference is None else f"{value}{between}{signed(difference)}"


def signed(difference: Difference) -> str:
    """`+0.80 [-0.10, +1.70]`"""
    interval = difference.interval
    tail = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else ""
    return f"{100 * difference.mean:+.2f}{tail}"


def _caption(table: SweepTable) -> str:
    parts = ["Mean over n seeds ± standard deviation of the sample."]
    if any(row.baseline for row in table.rows):
        baselines = "; ".join(
            dict.fromkeys(f"{r.label} to {r.baseline}" for r in table.rows if r.baseline)
        )
        parts.append(f"With sign: difference [95 % t interval, paired over seeds]: {baselines}.")
    if AUTOATTACK in table.metrics:
        parts.append("Mean = (clean + AA) / 2, NRR = 2 clean AA / (clean + AA), AA = autoattack.")
    return " ".join(parts)


# ---- writing


def to_json(table: SweepTable) -> str:
    """Everything, as fractions."""
    return json.dumps({"format": FORMAT, **asdict(table)}, indent=1)


def to_csv(table: SweepTable) -> str:
    """One line for each variant, checkpoint and metric, as fractions; empty where there is no
    value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "variant",
            "checkpoint",
            "metric",
            "n",
            "mean",
            "sd",
            "baseline",
            "difference",
            "low_95",
            "high_95",
            "pairs",
        ]
    )
    for row in table.rows:
        for metric in table.metrics:
            stat, difference = row.stats.get(metric), row.differences.get(metric)
            found = [stat.n, stat.mean, stat.sd] if stat else [0, None, None]
            low, high = difference.interval if difference and difference.interval else (None, None)
            against = [difference.mean, low, high, difference.n] if difference else [None] * 4
            writer.writerow([row.label, row.checkpoint, metric, *found, row.baseline, *against])
    return out.getvalue()


def to_markdown(table: SweepTable) -> str:
    """A table of per cents, its caption, and the failures."""
    lines = [
        _pipes(_headings(table)),
        _pipes(["---", "---", *(["---:"] * (len(table.metrics) + 1))]),
    ]
    for row in table.rows:
        cells = [_cell(row, metric, "±", "<br>") for metric in table.metrics]
        lines.append(
            _pipes([row.label.replace("|", "\\|"), row.checkpoint, row_count(row), *cells])
        )
    lines += ["", _caption(table)]
    lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    lines += [
        f"\nFailed: {title}\n\n```\n{reason}\n```" for title, reason in table.failures.items()
    ]
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_TEX = str.maketrans(
    {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
    }
    | {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", DASH: "--", "±": r"$\pm$"}
)


def to_latex(table: SweepTable) -> str:
    """A `tabular` for the package booktabs; the difference stands in small type behind the
    value."""
    head = " & ".join(heading.translate(_TEX) for heading in _headings(table))
    lines = [
        f"% {_caption(table)}",
        f"\\begin{{tabular}}{{ll{'r' * (len(table.metrics) + 1)}}}",
        "\\toprule",
    ]
    lines += [f"{head} \\\\", "\\midrule"]
    for row in table.rows:
        cells = [_tex_cell(row, metric) for metric in table.metrics]
        lines.append(
            " & ".join([row.label.translate(_TEX), row.checkpoint, row_count(row), *cells]) + r" \\"
        )
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex_cell(row: Row, metric: str) -> str:
    value, _, difference = _cell(row, metric, "±", "\n").translate(_TEX).partition("\n")
    return value + (f" {{\\small ${difference}$}}" if difference else "")
