"""The comparisons of the experiment: paired over seeds, at one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from claim_data import Row, primary_checkpoint
from claim_numbers import holm, paired_p

from rpat_cli.sweep.intervals import Difference, Stat, paired_difference

COLLAPSED_CLEAN, COLLAPSED_ROBUST = 0.3, 0.1

PLANNED = 5
"""Comparisons of a primary part, one for each method: fixed before the first run."""

CRITERION = "p < 0.05 after Holm's correction over five"
"""What makes a mean difference an effect."""

HELPS, HURTS, NO_EFFECT, NOT_TESTED = "helps", "hurts", "no effect found", "not tested"
OF_THE_ATTACK = "effect of the attack"
UNCHECKED = "not yet checked against `best`"
NOT_SIGNIFICANT = "not significant after Holm's correction over five"


def by_seed(
    rows: Sequence[Row], variant: str, metric: str, checkpoint: str = ""
) -> dict[int, float]:
    """A metric of a variant by seed, at its primary checkpoint unless one is given."""
    checkpoint = checkpoint or primary_checkpoint(variant)
    found = {}
    for row in rows:
        value = getattr(row, metric)
        if (row.variant, row.checkpoint) == (variant, checkpoint) and value is not None:
            found[row.seed] = value
    return found


@dataclass(frozen=True)
class Pair:
    """A variant against its baseline: the differences by seed, as fractions.

    Of a primary comparison also `p`, the p-value of the paired t test after Holm's correction, and
    `gap`, by how much more of what the metric leaves `best` breaks than at the baseline (mean over
    the pairs, as a fraction; None unless it is measured for all of them). `collapsed`: the seeds of
    which one of the two trainings collapsed; they are in all figures of the pair.
    """

    variant: str
    baseline: str
    without: Stat
    with_it: Stat
    by_seed: dict[int, float]
    difference: Difference
    collapsed: frozenset[int] = frozenset()
    p: float | None = None
    gap: float | None = None

    @property
    def effect(self) -> bool:
        return self.p is not None and self.p < 0.05

    @property
    def verdict(self) -> str:
        """Of a primary comparison."""
        if self.p is None or self.difference.interval is None:
            return NOT_TESTED
        if not self.effect:
            low, high = self.difference.interval
            return NO_EFFECT if low <= 0 <= high else NOT_SIGNIFICANT
        if self.gap is None:
            return UNCHECKED
        if abs(self.gap) > abs(self.difference.mean) / 3:
            return OF_THE_ATTACK
        return HELPS if self.difference.mean > 0 else HURTS

    @property
    def kept(self) -> dict[int, float]:
        """The differences of the seeds of which neither training collapsed."""
        return {seed: each for seed, each in self.by_seed.items() if seed not in self.collapsed}

    def without_collapses(self) -> Difference | None:
        """The mean of these; None if there are none."""
        return paired_difference(self.kept, dict.fromkeys(self.kept, 0.0))


def compared(
    rows: Sequence[Row], variant: str, baseline: str, metric: str, checkpoint: str = ""
) -> Pair | None:
    """None without a common seed."""
    one = by_seed(rows, variant, metric, checkpoint)
    other = by_seed(rows, baseline, metric, checkpoint)
    difference = paired_difference(one, other)
    if difference is None:
        return None
    seeds = sorted(one.keys() & other.keys())
    return Pair(
        variant=variant,
        baseline=baseline,
        without=Stat.of([other[seed] for seed in seeds]),
        with_it=Stat.of([one[seed] for seed in seeds]),
        by_seed={seed: one[seed] - other[seed] for seed in seeds},
        difference=difference,
        collapsed=frozenset(
            row.seed for row in collapsed(rows) if row.variant in (variant, baseline)
        ),
    )


def contrasts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each variant that has a baseline, with it, in the order of the table."""
    return list(dict.fromkeys((row.variant, row.baseline) for row in rows if row.baseline))


def all_compared(
    rows: Sequence[Row], pairs: Sequence[tuple[str, str]], metric: str, checkpoint: str = ""
) -> list[Pair]:
    found = [compared(rows, *pair, metric, checkpoint) for pair in pairs]
    return [pair for pair in found if pair is not None]


def decided(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Pair]:
    """The primary comparisons with their p-values, after Holm's correction over all that were
    planned, and the differences of their gaps."""
    raw = [paired_p(list(pair.by_seed.values())) for pair in pairs]
    adjusted = iter(holm([p for p in raw if p is not None], PLANNED))
    shown = []
    for pair, p in zip(pairs, raw, strict=True):
        more = paired_difference(gap(rows, pair.variant), gap(rows, pair.baseline))
        whole = more is not None and more.n == pair.difference.n
        p = None if p is None else next(adjusted)
        shown.append(replace(pair, p=p, gap=more.mean if more and whole else None))
    return shown


def gap(rows: Sequence[Row], variant: str) -> dict[int, float]:
    """By seed, how much of what the metric leaves `best` breaks."""
    longer = by_seed(rows, variant, "best_1000")
    shorter = by_seed(rows, variant, "robust_1000")
    return {seed: shorter[seed] - longer[seed] for seed in shorter.keys() & longer.keys()}


def failed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.failed]


def collapsed(rows: Sequence[Row]) -> list[Row]:
    """Trainings that are no classifier at their primary checkpoint; they stay in all means."""
    found = []
    for row in rows:
        if row.checkpoint == primary_checkpoint(row.variant):
            clean, robust = row.clean, row.robust
            assert clean is not None
            assert robust is not None
            if clean < COLLAPSED_CLEAN or robust < COLLAPSED_ROBUST:
                found.append(row)
    return found
