"""Attacks compared image by image, by exact tests: two images more of 500 are chance."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from rpat_cli.diagnostics.blocks import Level
from rpat_cli.diagnostics.verdict.evidence import FAIL_BELOW, WARN_BELOW, WHITE_BOX, Evidence
from rpat_cli.evaluation.statistics import sign_test

LEVELS: tuple[Level, ...] = ("PASS", "WARN", "FAIL")

Judgment = tuple[Level, str]
"""A level, and the reason for it in one or two sentences."""


def compare(e: Evidence, weak: str, strong: str) -> Judgment:
    """The weak attack may not break significantly more images that the strong one leaves than the
    other way round (sign test)."""
    return compare_flags(weak, e.broken[weak], strong, e.broken[strong])


def beyond_white_box(e: Evidence, name: str) -> Judgment:
    """The same for an attack that does not follow the model's gradient, and all that do, whatever
    their loss."""
    return compare_flags(name, e.broken[name], "/".join(used(e)), e.white_box)


def used(e: Evidence) -> list[str]:
    return [name for name in WHITE_BOX if name in e.broken]


def compare_flags(weak: str, by_weak: Tensor, strong: str, by_strong: Tensor) -> Judgment:
    only_weak = int((by_weak & ~by_strong).sum())
    only_strong = int((by_strong & ~by_weak).sum())
    p = sign_test(only_weak, only_strong)
    text = f"images broken: {only_strong} by {strong} only, {only_weak} by {weak} only"
    if p >= WARN_BELOW:
        return "PASS", f"{text}."
    return ("FAIL" if p < FAIL_BELOW else "WARN"), f"{text} (p = {p:.1g} by chance)."


def worst(e: Evidence, pairs: Sequence[tuple[str, str]]) -> Judgment:
    """Of several comparisons of a weak attack with a strong one, the worst level and the reasons
    for it."""
    results = [compare(e, weak, strong) for weak, strong in pairs]
    worst = max((level for level, _ in results), key=LEVELS.index)
    return worst, " ".join(reason for level, reason in results if level == worst)


def never_falls(e: Evidence, attacks: Sequence[str]) -> Judgment:
    """Each attack has to break at least what the one before it breaks."""
    level, reason = worst(e, list(pairwise(attacks)))
    if level == "PASS":
        counts = [f"{int(e.broken[name].sum())} by {name}" for name in attacks]
        reason = f"broken: {', '.join(counts)}."
    return level, reason
