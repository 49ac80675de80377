"""The audit in a suite: `audit:0.25` runs last, and of AutoAttack what the suite does not."""

from collections.abc import Sequence
from dataclasses import replace

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.words import AttackSpec, parse_word

AUDIT = "audit"
_EXACT = "autoattack-apgd"
"""What runs on all images where AutoAttack itself is audited."""

_REST = ("fab-t", "square")
"""The attacks of AutoAttack's standard version that `_EXACT` leaves out."""


def with_audit_last(specs: Sequence[AttackSpec]) -> list[AttackSpec]:
    """The suite as it is run. Where it names AutoAttack itself, that is audited: its APGD attacks
    run on all images, and the others on the sample.

    Raises `ConfigError` for two audits.
    """
    audits = [spec for spec in specs if spec.name == AUDIT]
    attacks = [spec for spec in specs if spec.name != AUDIT]
    if not audits:
        return attacks
    if len(audits) > 1:
        raise ConfigError(Problem("", "a suite has one audit, at most.", audits[1].label))
    exact, _ = parse_word(_EXACT)
    whole, _ = parse_word("autoattack")
    if whole in attacks:
        place = attacks.index(whole)
        attacks = [spec for spec in attacks if spec not in (whole, exact)]
        attacks.insert(place, exact)
    rest = {"attacks": _REST} if exact in attacks else {}
    return [*attacks, replace(audits[0], settings={**audits[0].settings, **rest})]
