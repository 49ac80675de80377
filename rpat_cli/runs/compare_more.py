"""What a comparison says of audits, and of several threats at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.compare import Comparison, compared
from rpat_cli.reports.evaluations import Measured, newest_union
from rpat_cli.reports.unions import listed


def compared_unions(a: Sequence[Measured], b: Sequence[Measured]) -> list[Comparison]:
    """Under several threats at once, where both were evaluated under the same ones."""
    one, other = newest_union(a), newest_union(b)
    if not one or not other or one.threats != other.threats:
        return []
    prints = {each.file.fingerprint for side in (a, b) for each in side}
    if len(prints) > 1 or len(one.correct_after) != len(other.correct_after):
        return []
    label = f"right under all of {listed(one.threats)}"
    return [compared(label, one.correct_after, other.correct_after)]


def audits(
    name: str, sources: Iterable[tuple[Measured, Mapping[str, AttackResult]]]
) -> Iterator[str]:
    """What is known of AutoAttack where it attacked a sample only."""
    for _, results in sources:
        for label, result in results.items():
            if result.audit:
                yield f"{label} on {name}: {result.audit.statement}"
