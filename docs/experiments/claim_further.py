"""What is computed over all parts: smoothness, and what it would take to be sure."""

from collections.abc import Iterator, Sequence

from claim_data import Row
from claim_numbers import MOST_PAIRS, pairs_needed, rank_correlation
from claim_pairs import PLANNED, Pair, all_compared, by_seed, contrasts
from claim_parts import PARTS, Tables, primary, reported
from claim_text import EXPLORATORY, table

from rpat_cli.sweep.intervals import Stat

SIZES = (0.003, 0.005, 0.01, 0.013)
"""True differences, as fractions."""

ENOUGH = 0.005

HOURS = 0.64
"""Of a training at the paper's scale, the mean over both sides of the five methods: 42,020 steps of
37.3 ms x 1.12 (passes) x 1.31 (operations of a pass)."""

SOURCE = (
    "42,020 steps; a step of `pgd + ra` on preact-resnet18 took 37.3 ms on an H200, [in bf16 with "
    "`--compile`](../performance.md), the ten cells have 1.12 times its passes in the mean, and "
    "resnet18-bottleneck, which was not measured, 1.31 times the operations"
)


def smoothness(tables: Tables) -> Iterator[str]:
    """Does unevenness go with accuracy: in what the term changes, and over the runs of a method?"""
    lines = []
    for name in tables:
        rows = reported(tables, name)
        groups = {"what the term changes": _changes(rows)}
        for method in dict.fromkeys(row.baseline or row.variant for row in rows):
            groups[f"runs of {method}"] = _values(rows, method)
        for group, values in groups.items():
            for metric in ("clean", "robust"):
                keys = sorted(values["unevenness"].keys() & values[metric].keys())
                found = rank_correlation(
                    [values["unevenness"][key] for key in keys],
                    [values[metric][key] for key in keys],
                )
                if found:
                    rho, (low, high) = found
                    shown = f"{rho:+.2f} [{low:+.2f}, {high:+.2f}]"
                    lines.append([PARTS[name].title, group, metric, str(len(keys)), shown])
    if lines:
        yield "### Smoothness"
        yield (
            f"{EXPLORATORY} Points of one method or of one seed are not independent, so the "
            "intervals are too narrow. Rank correlation of unevenness with accuracy. Below 0: "
            "where the logits change more evenly, the accuracy is higher. Logits that never "
            "change, as in a collapsed network, have no unevenness."
        )
        yield table(["", "over", "accuracy", "n", "Spearman [95 %]"], lines, 3)


Values = dict[str, dict[tuple[str, str, int], float]]
"""metric -> variant, baseline, seed -> value"""

MEASURED = ("unevenness", "clean", "robust")


def _changes(rows: Sequence[Row]) -> Values:
    pairs = contrasts(rows)
    return {metric: _differences(all_compared(rows, pairs, metric)) for metric in MEASURED}


def _values(rows: Sequence[Row], method: str) -> Values:
    """Of all runs of a method, without and with the term."""
    values: Values = {metric: {} for metric in MEASURED}
    for variant in dict.fromkeys(
        row.variant for row in rows if method in (row.variant, row.baseline)
    ):
        for metric in MEASURED:
            for seed, value in by_seed(rows, variant, metric).items():
                values[metric][variant, "", seed] = value
    return values


def _differences(pairs: Sequence[Pair]) -> dict[tuple[str, str, int], float]:
    found = {}
    for pair in pairs:
        for seed, value in pair.by_seed.items():
            found[pair.variant, pair.baseline, seed] = value
    return found


def hours_for(pairs: int) -> float:
    """GPU hours of so many pairs of every method, without their evaluation."""
    return 2 * pairs * PLANNED * HOURS


def sure(tables: Tables) -> Iterator[str]:
    """How many pairs, and hours on one GPU for those of all methods, each size of a true
    difference would take."""
    lines = []
    for name in tables:
        for pair in primary(tables, name) if PARTS[name].primary else ():
            stat = Stat.of(list(pair.by_seed.values()))
            if stat.sd:
                lines.append([PARTS[name].title, *_needed(pair, stat.n, stat.sd)])
    if not lines:
        return
    yield "### What it would take to be sure"
    yield (
        f"Pairs for 80 % power at the level 0.05 / {PLANNED}, from the sd of the differences seen; "
        f"in brackets the hours that both sides of all {PLANNED} methods then train on one GPU, at "
        f"{HOURS:g} a training at the paper's scale, if the spread there is as here. The hours are "
        f"an estimate ({SOURCE})."
    )
    head = ["", "", "n seen", "sd, points", *(f"{100 * size:g} points" for size in SIZES)]
    yield table(head, lines, 2)


def _needed(pair: Pair, seen: int, sd: float) -> list[str]:
    collapses = ", with collapses" if pair.collapsed else ""
    cells = [f"{pair.variant} to {pair.baseline}{collapses}", str(seen), f"{100 * sd:.2f}"]
    for size in SIZES:
        n = pairs_needed(size, sd)
        cells.append(f"more than {MOST_PAIRS:,}" if n is None else f"{n:,} ({hours_for(n):,.0f} h)")
    return cells
