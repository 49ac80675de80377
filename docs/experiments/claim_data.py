"""The raw table of the experiment: one row for each checkpoint of each trial, read from the folders
of sweeps, kept as CSV."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import STEPS, Perception
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.recipe.layers import read_recipe, resolve
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.evaluations import Measured, fitting, read_evaluations
from rpat_cli.reports.training import read_checkpoints
from rpat_cli.sweep.cost import cost_of
from rpat_cli.sweep.folder import TRIALS

LIMIT = 1000
"""Test images of the longer attack and of the perception diagnostic."""

LONG = "best"

WIDTH = 1
"""Of the audit on all test images, in points."""

NAMES = {"rebat piecewise": "rebat", "rebat piecewise + ra": "rebat + ra"}
"""Of variants whose label in a sweep's table is another one."""

PENDING = "pending"
"""In the place of a checkpoint: the variant has ended in no seed yet. Its seed says nothing."""


@dataclass(frozen=True)
class Row:
    """One checkpoint of a trial; accuracies are fractions, None where not measured. A trial that
    failed is one row without a checkpoint; a variant that has ended nowhere is one row, too, so
    that no block counts as complete without it.

    `robust` is under `attack`, on all test images; `robust_1000` and `best_1000`, under the same
    and under `best`, on at most 1,000 of them. `bend` is RPAT's own loss at mix 0.5 on test
    images, `unevenness` four times that over the change on the whole way. `seconds` are those of
    the training's epochs. `audited` is what `best` and an audit leave of all test images;
    AutoAttack on all of them is lower by at most `audit_gap` (95 %), since it broke `audit_broken`
    of `audit_sampled` that were left.

    Of the whole part, so the same in all of its rows: `planned` are the seeds of the sweep, `hours`
    those that the trainings and attacks of all its trials have taken, summed, and `ended` is 1 if
    somebody has said that there will be no more of them.
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
    seconds: float | None = None
    audited: float | None = None
    audit_gap: float | None = None
    audit_sampled: float | None = None
    audit_broken: float | None = None
    planned: int = 0
    hours: float = 0.0
    ended: int = 0

    @property
    def failed(self) -> bool:
        return not self.checkpoint

    @property
    def pending(self) -> bool:
        return self.checkpoint == PENDING


def primary_checkpoint(variant: str) -> str:
    """Which checkpoint decides: best by validation; of ReBAT the averaged weights."""
    return "best_wa" if variant.startswith("rebat") else "best"


def collect(folder: Path, *, ended: bool = False) -> list[Row]:
    """The rows of a sweep's folder, in the order of its table. `ended`: its runs are over, even if
    seeds are missing. Raises `OSError` without a table."""
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    attack = next(name for name in table["metrics"] if name != "clean")
    rows: list[Row] = []
    added: dict[str, dict[str, dict[str, float]]] = {}
    seconds: dict[str, float] = {}
    for line in table["rows"]:
        for seed, page in sorted(line["pages"].items(), key=lambda item: int(item[0])):
            trial, values = Path(page).parts[1], line["values"]
            if trial not in added:
                run = folder / Path(page).parent
                added[trial], seconds[trial] = _added(run, attack), cost_of(RunFolder(run)).training
            rows.append(
                Row(
                    variant=line["label"],
                    baseline=line["baseline"] or "",
                    seed=int(seed),
                    trial=trial,
                    checkpoint=line["checkpoint"],
                    attack=attack,
                    clean=values["clean"][seed],
                    robust=values[attack][seed],
                    seconds=seconds[trial],
                    **added[trial].get(line["checkpoint"], {}),
                )
            )
    baselines = {line["label"]: line["baseline"] or "" for line in table["rows"]}
    for title in table["failures"]:
        variant, _, seed = title.rpartition(", seed ")
        rows.append(Row(variant, baselines.get(variant, ""), int(seed), "", "", attack))
    there = {row.variant for row in rows}
    for variant, baseline in baselines.items():
        if variant not in there:
            rows.append(Row(variant, baseline, -1, "", PENDING, attack))
    planned = max((line["planned"] for line in table["rows"]), default=0)
    hours = _hours(folder)
    found = []
    for row in rows:
        variant, baseline = (NAMES.get(name, name) for name in (row.variant, row.baseline))
        found.append(
            replace(
                row,
                variant=variant,
                baseline=baseline,
                planned=planned,
                hours=hours,
                ended=int(ended),
            )
        )
    return found


def _hours(folder: Path) -> float:
    """Of all trials: also of those that failed, or that aren't finished."""
    costs = [cost_of(RunFolder(run)) for run in sorted((folder / TRIALS).glob("*/run"))]
    return round(sum(cost.training + cost.attacks for cost in costs) / 3600, 3)


def _added(run: Path, attack: str) -> dict[str, dict[str, float]]:
    """By checkpoint, what was measured of a run beside the sweep's evaluations. Nothing of those
    that differ from these in more than the attack and the number of images, nor of weights that
    further training has replaced; of two that fit the newer counts."""
    folder = RunFolder(run)
    recipe = resolve(read_recipe(folder.recipe))
    threat = Threat(recipe.threat.norm, recipe.threat.eps)
    every = read_evaluations(folder, read_checkpoints(folder), [])
    every = [each for each in every if each.evaluation.threat == threat]
    own: dict[str, Measured] = {}
    for each in fitting(every, recipe, []):
        if attack in _attacks(each):
            own |= {checkpoint.name: each for checkpoint in each.checkpoints}
    found: dict[str, dict[str, float]] = {name: {} for name in own}
    for each in every:
        for name in own.keys() & {checkpoint.name for checkpoint in each.checkpoints}:
            if _comparable(each, own[name]):
                found[name] |= _on_some(each, own[name], attack) | _audited(each)
    return found


def _attacks(measured: Measured) -> dict[str, AttackResult]:
    return {each.label: each for each in measured.evaluation.attacks}


def _comparable(one: Measured, other: Measured) -> bool:
    """The same data, random numbers and versions. Threat and weights were compared before."""
    a, b = one.evaluation, other.evaluation
    versions = [
        [each.file.environment.get(name) for name in ("rpat", "torch")] for each in (one, other)
    ]
    return (
        one.file.fingerprint == other.file.fingerprint
        and (a.seed, a.batch_size) == (b.seed, b.batch_size)
        and versions[0] == versions[1]
    )


def _best(measured: Measured) -> AttackResult | None:
    """`best` as it is: a search in bfloat16, and gradients through stand-ins, are recorded among
    its settings."""
    found = _attacks(measured).get(LONG)
    return found if found and found.settings.keys() == {"attacks"} else None


def _on_some(measured: Measured, own: Measured, attack: str) -> dict[str, float]:
    """The metric and `best` on `LIMIT` images, and perception, if it is that evaluation."""
    evaluation = measured.evaluation
    shorter, long = _attacks(measured).get(attack), _best(measured)
    if not shorter or not long or shorter.settings != _attacks(own)[attack].settings:
        return {}
    # A limit that takes all of a small test set isn't recorded.
    if evaluation.limit != LIMIT and (evaluation.limit is not None or evaluation.n > LIMIT):
        return {}
    found = {"robust_1000": shorter.robust_acc, "best_1000": long.robust_acc}
    if measured.file.has_diagnostic("perception"):
        perception = Perception.from_dict(measured.file.diagnostic("perception"))
        whole = (evaluation.threat, evaluation.n, STEPS)
        if (perception.threat, perception.n, perception.steps) == whole:
            found |= smoothness(perception)
    return found


def _audited(measured: Measured) -> dict[str, float]:
    """`best` and the audit on all test images, if it is that evaluation."""
    if measured.evaluation.limit is not None or not _best(measured):
        return {}
    for result in measured.evaluation.attacks:
        audit = result.audit
        if audit is not None and (audit.width, audit.level) == (WIDTH, 0.95):
            return {
                "audited": result.robust_acc,
                "audit_gap": audit.gap,
                "audit_sampled": audit.sampled,
                "audit_broken": audit.broken,
            }
    return {}


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
    if not total:
        return {}
    apart = 2 * halves - whole
    found = {"bend": apart / total / 4}
    # The logits of a collapsed network do not change: 0 / 0.
    return {**found, "unevenness": apart / whole} if whole else found


def complete_blocks(rows: Sequence[Row], variants: Collection[str] = ()) -> list[Row]:
    """Only the seeds of which every variant of the sweep has ended, finished or failed. `variants`:
    all of them, if the rows need not have each."""
    variants = set(variants) or {row.variant for row in rows}
    ended: dict[int, set[str]] = {}
    for row in rows:
        if not row.pending:
            ended.setdefault(row.seed, set()).add(row.variant)
    return [row for row in rows if ended.get(row.seed) == variants]
