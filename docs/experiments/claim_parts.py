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
    """The complete blocks of a part; none of them as long as they are fewer than planned."""
    rows = complete_blocks(tables.get(name, ()))
    return rows if rows and len(seeds_of(rows)) >= PARTS[name].least else []


def seeds_of(rows: Sequence[Row]) -> list[int]:
    return sorted({row.seed for row in rows if not row.pending})


def blocks_in_words(tables: Tables, name: str) -> str:
    """Why nothing is reported."""
    there = len(seeds_of(complete_blocks(tables[name])))
    return f"{there} complete blocks are there, of the {PARTS[name].least} that are the least"


def primary(tables: Tables, name: str) -> list[Pair]:
    """The comparisons that decide, of a part that has such."""
    rows = reported(tables, name)
    return decided(rows, all_compared(rows, contrasts(rows), "robust"))
