"""The parts of the experiment, and what of each is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from claim_data import Row, complete_blocks
from claim_pairs import Pair, all_compared, contrasts, decided

from rpat_cli.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A part of the experiment. `primary`: its comparisons are corrected and decide. `least`: how
    many complete blocks the plan wants before anything is reported. `audits`: two of its
    checkpoints are audited on all test images. `also`: more comparisons, of variants that may be in
    the part `beside` it; `against`: one of those, with which every variant of the term is compared,
    too."""

    title: str
    primary: bool
    least: int = 3
    audits: bool = False
    also: tuple[tuple[str, str], ...] = ()
    against: str = ""
    beside: str = ""


FIRST = "claim-fashion-mnist"

RAAT = (("raat", "pgd"), ("raat", "pgd + ra"), ("raat", "consistency"))
PARTS = {
    FIRST: Part("Fashion-MNIST, small-cnn", primary=True, least=5, audits=True),
    "claim-fashion-mnist-terms": Part(
        "Other scales and forms, and RAAT: Fashion-MNIST, small-cnn",
        primary=False,
        also=RAAT,
        against="pgd + ra",
        beside=FIRST,
    ),
    "claim-cifar10": Part("CIFAR-10, preact-resnet18", primary=True),
    "claim-cifar10-jpeg": Part("CIFAR-10 (JPEG copies), small-cnn", primary=True),
    "claim-selection": Part("120 epochs on fashion-mini, small-cnn", primary=False),
}

Tables = Mapping[str, Sequence[Row]]
"""The raw tables, by the name of the part."""


def part_of(name: str) -> str:
    """The part that a folder or a table belongs to: several machines may share one, as `NAME` and
    `NAME.MACHINE`."""
    return name.partition(".")[0]


def combined(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """One table of those that several machines have made of a part. A block is of one machine: of
    the first on which it is complete, else of the first that has any of it. The sweep of one
    machine names all planned seeds, and what is said to be over is so for all of them.

    Raises `ConfigError` for more complete blocks than any sweep has planned.
    """
    if len(tables) == 1:
        return list(tables[0])
    every = [row for rows in tables for row in rows]
    variants = {row.variant for row in every}
    taken: set[int] = set()
    found: list[Row] = []
    for rows in [*(complete_blocks(rows, variants) for rows in tables), *tables]:
        found += [row for row in rows if not row.pending and row.seed not in taken]
        taken |= {row.seed for row in rows if not row.pending}
    waiting = {row.variant: row for row in every if row.pending}
    there = {row.variant for row in found}
    found += [row for name, row in waiting.items() if name not in there]
    planned, ended = max(row.planned for row in every), max(row.ended for row in every)
    blocks = len(seeds_of(complete_blocks(found, variants)))
    if blocks > planned:
        raise ConfigError(
            f"the raw tables of a part hold {blocks} blocks together, and none of their sweeps has "
            f"more than {planned} seeds. Give the sweep of one machine all seeds of the plan."
        )
    hours = round(sum(rows[0].hours for rows in tables), 3)
    return [replace(row, planned=planned, hours=hours, ended=ended) for row in found]


def reported(tables: Tables, name: str) -> list[Row]:
    """The complete blocks of a part whose runs have ended; before, and below the least that the
    plan wants, none of them: nobody decides by the results how many runs there will be."""
    every = tables.get(name, ())
    rows = complete_blocks(every)
    return rows if over(every) and len(seeds_of(rows)) >= PARTS[name].least else []


def over(rows: Sequence[Row]) -> bool:
    """Have the runs of a part ended? `rows`: all of them."""
    blocks = len(seeds_of(complete_blocks(rows)))
    return any(row.ended or 0 < row.planned <= blocks for row in rows)


def seeds_of(rows: Sequence[Row]) -> list[int]:
    return sorted({row.seed for row in rows if not row.pending})


def extent(rows: Sequence[Row]) -> str:
    """`6 of 8 blocks, 7.9 hours of computing`: of all rows of a part."""
    blocks = len(seeds_of(complete_blocks(rows)))
    return f"{blocks} of {rows[0].planned} blocks, {rows[0].hours:.1f} hours of computing"


def no_result(tables: Tables, name: str) -> str:
    """That nothing is reported, and why."""
    rows, least = tables[name], PARTS[name].least
    if over(rows):
        why = f"its runs have ended, and the plan reports from {least} complete blocks on"
        return f"no result: {extent(rows)}; {why}"
    when = f"it is reported when its runs have ended, from {least} complete blocks on"
    return f"no result yet: {extent(rows)}; {when}"


def primary(tables: Tables, name: str) -> list[Pair]:
    """The comparisons that decide, of a part that has such."""
    rows = reported(tables, name)
    return decided(rows, all_compared(rows, contrasts(rows), "robust"))
