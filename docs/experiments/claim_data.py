"""The raw table of the experiment: one row for each checkpoint of each trial, read from the folders
of sweeps, kept as CSV."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rpat_cli.diagnostics.perception import Perception
from rpat_cli.evaluation.results import parse_evaluation
from rpat_cli.records import eval_file
from rpat_cli.records.run_folder import RunFolder

DATA = Path(__file__).parent / "data"

LIMIT = 1000
"""Test images of the longer attack and of the perception diagnostic."""

LONG = "best"

PENDING = "pending"
"""In the place of a checkpoint: the variant has ended in no seed yet. Its seed says nothing."""


@dataclass(frozen=True)
class Row:
    """One checkpoint of a trial; accuracies are fractions, None where not measured. A trial that
    failed is one row without a checkpoint; a variant that has ended nowhere is one row, too, so
    that no block counts as complete without it.

    `robust` is under `attack`, on all test images; `robust_1000` and `best_1000`, under the same
    and under `best`, on at most 1,000 of them. `bend` is RPAT's own loss at mix 0.5 on test
    images, `unevenness` four times that over the change on the whole way.
    """

    variant: str
    baseline: str
    seed: int
    trial: str
    checkpoint: str
    attack: str
    clean: float | None = None
    robust: float | None = None
    robust_1000: float | None = None
    best_1000: float | None = None
    bend: float | None = None
    unevenness: float | None = None

    @property
    def failed(self) -> bool:
        return not self.checkpoint

    @property
    def pending(self) -> bool:
        return self.checkpoint == PENDING


NUMBERS = ("clean", "robust", "robust_1000", "best_1000", "bend", "unevenness")


def primary_checkpoint(variant: str) -> str:
    """Which checkpoint decides: best by validation; of ReBAT the averaged weights."""
    return "best_wa" if variant.startswith("rebat") else "best"


def collect(folder: Path) -> list[Row]:
    """The rows of a sweep's folder, in the order of its table. Raises `OSError` without a table."""
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    attack = next(name for name in table["metrics"] if name != "clean")
    rows = []
    for line in table["rows"]:
        for seed, page in sorted(line["pages"].items(), key=lambda item: int(item[0])):
            values = line["values"]
            rows.append(
                Row(
                    variant=line["label"],
                    baseline=line["baseline"] or "",
                    seed=int(seed),
                    trial=Path(page).parts[1],
                    checkpoint=line["checkpoint"],
                    attack=attack,
                    clean=values["clean"][seed],
                    robust=values[attack][seed],
                    **_further(folder / Path(page).parent, line["checkpoint"], attack),
                )
            )
    baselines = {line["label"]: line["baseline"] or "" for line in table["rows"]}
    for title in table["failures"]:
        variant, _, seed = title.rpartition(", seed ")
        rows.append(Row(variant, baselines.get(variant, ""), int(seed), "", "", attack))
    ended = {row.variant for row in rows}
    for variant, baseline in baselines.items():
        if variant not in ended:
            rows.append(Row(variant, baseline, -1, "", PENDING, attack))
    return rows


def _further(run: Path, checkpoint: str, attack: str) -> dict[str, float]:
    """What `measure` has added to a run, of this checkpoint: nothing of other evaluations, such as
    one with an audit on all images."""
    found: dict[str, float] = {}
    for file in eval_file.read_all(RunFolder(run).evals)[0]:
        evaluation = parse_evaluation(file)
        results = {each.label: each.accuracy.value for each in evaluation.attacks}
        # A limit that takes all of a small test set isn't recorded.
        at_most = LIMIT if evaluation.n <= LIMIT and file.limit is None else file.limit
        wanted = file.checkpoint == checkpoint and at_most == LIMIT
        if not wanted or not {attack, LONG} <= results.keys():
            continue
        found |= {"robust_1000": results[attack], "best_1000": results[LONG]}
        if file.has_diagnostic("perception"):
            found |= smoothness(Perception.from_dict(file.diagnostic("perception")))
    return found


def smoothness(perception: Perception) -> dict[str, float]:
    """`bend` and `unevenness` over the images that are right without an attack.

    With a, b the changes of the logits on the two halves of the way, a + b on the whole of it:
    |a - b|² = 2 (|a|² + |b|²) - |a + b|², and f(x_mix) lies (a - b) / 2 from the middle.
    """
    halves = whole = 0.0
    total = 0
    for group in ("broken", "defended"):
        change = perception["adversarial", group]
        if change.first_half is None or change.second_half is None or change.whole is None:
            continue
        total += change.n
        halves += change.n * (change.first_half + change.second_half)
        whole += change.n * change.whole
    if not total or not whole:
        return {}
    apart = 2 * halves - whole
    return {"bend": apart / total / 4, "unevenness": apart / whole}


def measure(folder: Path, jobs: int) -> None:
    """Attack 1,000 images with `best` and measure perception, on the primary checkpoint of every
    finished trial that lacks it."""
    for row in collect(folder):
        wanted = row.checkpoint == primary_checkpoint(row.variant)
        if not wanted or (row.best_1000 is not None and row.unevenness is not None):
            continue
        run = folder / "trials" / row.trial / "run"
        what = ["--checkpoint", row.checkpoint, "--attack", f"{row.attack},{LONG}"]
        how = ["--perception", "--limit", str(LIMIT), "--jobs", str(jobs), "--quiet"]
        subprocess.run(
            [sys.executable, "-m", "rpat_cli", "eval", str(run), *what, *how], check=True
        )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(value) for name, value in asdict(row).items()})


def _short(value: Any) -> Any:
    """Numbers with ten digits: enough for a fraction of 10,000 images, and the same everywhere."""
    return f"{value:.10g}" if isinstance(value, float) else value


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(_rows_in(csv.DictReader(file)))


def _rows_in(lines: "csv.DictReader[str]") -> Iterator[Row]:
    for line in lines:
        numbers = {name: float(line[name]) if line[name] else None for name in NUMBERS}
        texts = {name: line[name] for name in line if name not in (*NUMBERS, "seed")}
        yield Row(**texts, seed=int(line["seed"]), **numbers)


def complete_blocks(rows: Sequence[Row]) -> list[Row]:
    """Only the seeds of which every variant of the sweep has ended, finished or failed."""
    variants = {row.variant for row in rows}
    ended: dict[int, set[str]] = {}
    for row in rows:
        if not row.pending:
            ended.setdefault(row.seed, set()).add(row.variant)
    return [row for row in rows if ended.get(row.seed) == variants]
