"""Which attack breaks a model: what to type where the others were fooled."""

from rpat_cli.diagnostics.verdict.evidence import EOT, STAND_IN, WARN_BELOW, Evidence
from rpat_cli.evaluation.statistics import sign_test

ORDER = (EOT, "cw-pgd", "apgd-ce", STAND_IN, "square")
"""Among attacks that do equally well the first is named: the simplest that suits the model."""

ANY_SOURCE = "transfer:RUN"
"""For images made on the substitute, which is nothing that a command could name."""


def strongest(e: Evidence) -> str:
    """The attack that no other one beats by more than chance, of those in `e.broken`; "" without
    any."""
    names = [name for name in (*ORDER, *e.transfers) if name in e.broken]
    if not names:
        return ""
    best = max(names, key=lambda name: int(e.broken[name].sum()))
    return next(name for name in names if not _beats(e, best, name))


def words(e: Evidence, attack: str) -> str:
    """What to give to `rpat eval` to run an attack of `e.broken`, or one like it."""
    if attack == STAND_IN:
        flags = [f"--surrogate {module}=identity" for module in e.stand_ins]
        return " ".join(["--attack cw-pgd-50", *flags])
    spelled = {EOT: "cw-pgd-20@eot=10", "cw-pgd": "cw-pgd-50", "substitute": ANY_SOURCE}
    return f"--attack {spelled.get(attack, attack)}"


def _beats(e: Evidence, one: str, other: str) -> bool:
    more = int((e.broken[one] & ~e.broken[other]).sum())
    less = int((e.broken[other] & ~e.broken[one]).sum())
    return sign_test(more, less) < WARN_BELOW
