"""The parts of the experiment, and what of each is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claim_data import Row, complete_blocks
from claim_pairs import Pair, all_compared, contrasts, decided


@dataclass(frozen=True)
class Part:
    """A part of the experiment. `primary`: its comparisons are corrected and decide. `least`: how
    many complete blocks the plan wants before anything is reported. `audits`: two of its
    checkpoints are audited on all test images. `also`: more comparisons, of variants that may be in
    the part `beside` it."""

    title: str
    primary: bool
    least: int = 3
    audits: bool = False
    also: tuple[tuple[str, str], ...] = ()
    beside: str = ""


FIRST = "claim-fashion-mnist"

RAAT = (("raat", "pgd"), ("raat", "pgd + ra"), ("raat", "consistency"))
PARTS = {
    FIRST: Part("Fashion-MNIST, small-cnn", primary=True, least=5, audits=True),
    "claim-fashion-mnist-terms": Part(
        "Other scales and forms, and RAAT: Fashion-MNIST, small-cnn",
        primary=False,
        also=RAAT,
        beside=FIRST,
    ),
    "claim-cifar10": Part("CIFAR-10, preact-resnet18", primary=True),
    "claim-cifar10-jpeg": Part("CIFAR-10 (JPEG copies), small-cnn", primary=True),
    "claim-selection": Part("120 epochs on fashion-mini, small-cnn", primary=False),
}

Tables = Mapping[str, Sequence[Row]]
"""The raw tables, by the name of the part."""


def reported(tables: Tables, name: str) -> list[Row]:
    """The complete blocks of a part whose runs have ended; before, and below the least that the
    plan wants, none of them: nobody decides by the results how many runs there will be."""
    rows = complete_blocks(tables.get(name, ()))
    blocks = len(seeds_of(rows))
    over = any(row.ended or 0 < row.planned <= blocks for row in rows)
    return rows if over and blocks >= PARTS[name].least else []


def seeds_of(rows: Sequence[Row]) -> list[int]:
    return sorted({row.seed for row in rows if not row.pending})


def extent(rows: Sequence[Row]) -> str:
    """`6 of 8 blocks, 7.9 hours of computing`: of all rows of a part."""
    blocks = len(seeds_of(complete_blocks(rows)))
    return f"{blocks} of {rows[0].planned} blocks, {rows[0].hours:.1f} hours of computing"


def blocks_in_words(tables: Tables, name: str) -> str:
    """Why nothing is reported."""
    return (
        f"{extent(tables[name])}; it is reported when its runs have ended, from "
        f"{PARTS[name].least} complete blocks on"
    )


def primary(tables: Tables, name: str) -> list[Pair]:
    """The comparisons that decide, of a part that has such."""
    rows = reported(tables, name)
    return decided(rows, all_compared(rows, contrasts(rows), "robust"))
