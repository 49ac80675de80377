"""The table of docs/results.md, every method without and with robust perception, and what README.md
says of it, from the folders of three sweeps; what no folder has stays as it is in data/methods.csv:

    python docs/experiments/methods_table.py sweeps/fashion-mini-*methods
    python docs/experiments/methods_table.py --time  # a race of the steps of all of them
    python docs/experiments/methods_table.py         # the page again, from the tables in data/
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from raw_tables import DATA, between, read_csv, write_csv

from rpat_cli.benchmark.race import Spread, race
from rpat_cli.benchmark.training import OurSteps
from rpat_cli.runs.build import architecture_for, build_data, compute_for
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.intervals import Stat, paired_difference
from rpat_cli.sweep.sweep_file import find_sweep
from rpat_cli.sweep.table import signed, spread
from rpat_cli.text import percent

PAGE = Path(__file__).parent.parent / "results.md"
README = PAGE.parent.parent / "README.md"
SWEEPS = (
    "fashion-mini-methods",
    "fashion-mini-published-methods",
    "fashion-mini-further-methods",
)
STRONGEST = "apgd-t"
"""Of AutoAttack's parts."""


@dataclass(frozen=True)
class Row:
    """One checkpoint of a trial; accuracies are fractions. `forward`, `backward`: passes of a
    step, in the mean. `collapsed`: the epoch that the collapse guard reported, 0 for none."""

    variant: str
    baseline: str
    seed: int
    checkpoint: str
    clean: float
    pgd_20: float
    apgd_t: float
    forward: float
    backward: float
    collapsed: int


@dataclass(frozen=True)
class Step:
    """Processor seconds of a step: the median of `rounds`, and its quartiles."""

    variant: str
    seconds: float
    low: float
    high: float
    rounds: int


def collect(folder: Path) -> Iterator[Row]:
    """Raises `ValueError` unless all trials of the sweep are finished."""
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    unfinished = [line["label"] for line in table["rows"] if line["n"] < line["planned"]]
    if table["failures"] or unfinished:
        raise ValueError(f"{folder}: not finished: {', '.join([*table['failures'], *unfinished])}")
    for line in table["rows"]:
        for seed, page in line["pages"].items():
            report = json.loads((folder / page).with_suffix(".json").read_text(encoding="utf-8"))
            records = report["training"]["records"]
            steps = sum(_steps(record, report["recipe"]["batch_size"]) for record in records)
            yield Row(
                line["label"],
                line["baseline"] or "",
                int(seed),
                line["checkpoint"],
                *(line["values"][metric][seed] for metric in ("clean", "pgd-20", STRONGEST)),
                report["training"]["forward"] / steps,
                report["training"]["backward"] / steps,
                next((each["epoch"] for each in records if each["watched"].get("collapsed")), 0),
            )


def _steps(record: Mapping[str, Any], batch_size: int) -> int:
    return math.ceil(round(record["images_per_second"] * record["seconds"]) / batch_size)


def time_steps(seconds: float) -> list[Step]:
    """All variants of all sweeps in one process, turn by turn: by the processor's time, which
    other programs hardly change."""
    contestants: dict[str, OurSteps] = {}
    for name in SWEEPS:
        for variant in plan_sweep(find_sweep(name)).variants:
            recipe = variant.recipe
            data = build_data(recipe.data, recipe.seed)
            network = architecture_for(recipe, data)
            contestants[variant.label] = OurSteps(
                variant.label, recipe, data, compute_for(recipe, network), network
            )
    times = race(list(contestants.values()), seconds=seconds, least=5)
    spreads = {label: Spread.of(each.cpu_seconds) for label, each in times.items()}
    return [
        Step(label, each.median, each.low, each.high, len(times[label].cpu_seconds))
        for label, each in spreads.items()
    ]


def joined(folders: Sequence[Path], earlier: Sequence[Row] = ()) -> list[Row]:
    """The rows of several sweeps, below the earlier ones of variants that none of them has trained.
    What more than one of them has trained has to be the same to the bit, or their other rows could
    not be compared either: raises `ValueError`."""
    rows: dict[tuple[str, int, str], Row] = {}
    for folder in folders:
        for row in collect(folder):
            key = (row.variant, row.seed, row.checkpoint)
            if rows.setdefault(key, row) != row:
                raise ValueError(f"{folder}: {row.variant}, seed {row.seed}: other figures before")
    trained = {row.variant for row in rows.values()}
    return [row for row in earlier if row.variant not in trained] + list(rows.values())


def page(rows: Sequence[Row], steps: Sequence[Step]) -> str:
    """The table in Markdown, how many differences are more than chance, which trainings
    collapsed."""
    seconds = {step.variant: step.seconds for step in steps}
    lines = [
        "| method | passes | time | clean | pgd-20 | apgd-t | last epoch: apgd-t |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        for suffix, words in (("", ""), ("_wa", " (EMA)")):
            if any(row.checkpoint == f"best{suffix}" for row in own):
                cells = [
                    f"{variant}{words}",
                    f"{own[0].forward:.4g} + {own[0].backward:.4g}",
                    f"{seconds[variant] / seconds['pgd']:.2f}" if variant in seconds else "",
                    *(_cell(rows, own, f"best{suffix}", f) for f in (_clean, _pgd_20, _apgd_t)),
                    _cell(rows, own, f"last{suffix}", _apgd_t),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _differences(rows), _collapses(rows), "", _flattered(rows)])


def _clean(row: Row) -> float:
    return row.clean


def _pgd_20(row: Row) -> float:
    return row.pgd_20


def _apgd_t(row: Row) -> float:
    return row.apgd_t


def _cell(
    rows: Sequence[Row], own: Sequence[Row], checkpoint: str, metric: Callable[[Row], float]
) -> str:
    """Mean ± sd over the seeds, and below it the paired difference from the baseline."""
    values = _values(own, own[0].variant, checkpoint, metric)
    shown = spread(Stat.of(list(values.values())))
    difference = paired_difference(values, _values(rows, own[0].baseline, checkpoint, metric))
    return f"{shown}<br>{signed(difference)}" if difference else shown


def _values(
    rows: Sequence[Row], variant: str, checkpoint: str, metric: Callable[[Row], float]
) -> dict[int, float]:
    """By seed."""
    found = (row for row in rows if (row.variant, row.checkpoint) == (variant, checkpoint))
    return {row.seed: metric(row) for row in found}


def _differences(rows: Sequence[Row]) -> str:
    """How many differences in apgd-t, of the best epochs, are more than the noise of the seeds."""
    pairs = {row.variant: row.baseline for row in rows if row.baseline}
    found = [
        paired_difference(*(_values(rows, each, "best", _apgd_t) for each in pair))
        for pair in pairs.items()
    ]
    intervals = [each.interval for each in found if each and each.interval]
    above = sum(low > 0 for low, _ in intervals)
    below = sum(high < 0 for _, high in intervals)
    return (
        f"Of the {len(intervals)} differences that `--ra` makes in the best epoch's apgd-t, the "
        f"interval lies above 0 in {above} and below 0 in {below}; by chance it would in one of "
        "twenty."
    )


def _flattered(rows: Sequence[Row], count: int = 5) -> str:
    """Where PGD-20 alone would have said too much, in the best epochs without the term."""
    gaps = {
        row.variant: Stat.of(list(_values(rows, row.variant, "best", _pgd_20).values())).mean
        - Stat.of(list(_values(rows, row.variant, "best", _apgd_t).values())).mean
        for row in rows
        if not row.baseline
    }
    most = sorted(gaps, key=lambda variant: -gaps[variant])[:count]
    named = ", ".join(f"`{variant}` ({percent(gaps[variant])})" for variant in most)
    return (
        f"Without `--ra`, PGD-20 says {percent(median(gaps.values()))} points more than "
        f"AutoAttack's strongest part in the median method, and most more for {named}."
    )


def headline(rows: Sequence[Row]) -> str:
    """The sentence of README.md: the last epoch without and with adversarial training."""
    last = {
        row.variant: Stat.of(list(_values(rows, row.variant, "last", _apgd_t).values())).mean
        for row in rows
        if not row.baseline
    }
    trained = [last[name] for name in ("pgd", "trades", "mart", "consistency", "rebat")]
    return (
        "Adversarial training on `fashion-mini` (1,600 training images, three seeds) takes the "
        "accuracy of the last epoch under AutoAttack's strongest part from "
        f"{percent(last['standard'])} % (`standard`) to between {percent(min(trained))} and "
        f"{percent(max(trained))} % (`pgd`, `trades`, `mart`, `consistency`, `rebat`)."
    )


def _collapses(rows: Sequence[Row]) -> str:
    found = {
        f"`{row.variant}`, seed {row.seed}, in epoch {row.collapsed}": None
        for row in rows
        if row.collapsed
    }
    trained = len({(row.variant, row.seed) for row in rows})
    if not found:
        return f"The collapse guard reported none of these {trained} trainings."
    return f"The collapse guard reported {len(found)} of these {trained} trainings: " + (
        "; ".join(found) + "."
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the table of docs/results.md")
    parser.add_argument("folders", nargs="*", type=Path, help="folders of finished sweeps")
    parser.add_argument("--time", action="store_true", help="race the steps of all methods")
    parser.add_argument("--seconds", type=float, default=120, help="how long --time goes on")
    given = parser.parse_args(arguments)
    table = DATA / "methods.csv"
    if given.folders:
        try:
            write_csv(joined(given.folders, read_csv(table, Row)), table)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    if given.time:
        write_csv(time_steps(given.seconds), DATA / "methods-time.csv")
    rows = read_csv(table, Row)
    steps = read_csv(DATA / "methods-time.csv", Step)
    for file, marker, content in (
        (PAGE, "results", page(rows, steps)),
        (README, "methods", headline(rows)),
    ):
        text = file.read_text(encoding="utf-8")
        file.write_text(between(text, marker, content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
