"""The comparisons of the experiment: paired over seeds, at one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from claim_data import Row, primary_checkpoint
from claim_numbers import holm, paired_p

from rpat_cli.sweep.intervals import Difference, Stat, paired_difference

COLLAPSED_CLEAN, COLLAPSED_ROBUST = 0.3, 0.1


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
    """A variant against its baseline: the differences by seed, as fractions, and the p-value of
    the paired t test, corrected (Holm) if it is a primary comparison."""

    variant: str
    baseline: str
    without: Stat
    with_it: Stat
    by_seed: dict[int, float]
    difference: Difference
    p: float | None = None

    @property
    def verdict(self) -> str:
        if self.p is None or self.p >= 0.05:
            return "no effect found"
        return "helps" if self.difference.mean > 0 else "hurts"


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
    )


def contrasts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each variant that has a baseline, with it, in the order of the table."""
    return list(dict.fromkeys((row.variant, row.baseline) for row in rows if row.baseline))


def all_compared(
    rows: Sequence[Row], pairs: Sequence[tuple[str, str]], metric: str, checkpoint: str = ""
) -> list[Pair]:
    found = [compared(rows, *pair, metric, checkpoint) for pair in pairs]
    return [pair for pair in found if pair is not None]


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """With p-values after Holm's correction over those that have one."""
    raw = [paired_p(list(pair.by_seed.values())) for pair in pairs]
    adjusted = iter(holm([p for p in raw if p is not None]))
    shown = []
    for pair, p in zip(pairs, raw, strict=True):
        fields = {**vars(pair), "p": None if p is None else next(adjusted)}
        shown.append(Pair(**fields))
    return shown


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
