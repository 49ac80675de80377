"""Which attack breaks a model: what to type where the others were fooled."""

from rpat_cli.diagnostics.verdict.evidence import EOT, STAND_IN, WARN_BELOW, WHITE_BOX, Evidence
from rpat_cli.evaluation.statistics import sign_test

GENERAL = ("cw-pgd", "apgd-ce", "mm-3", "square")
"""Attacks for any model, the simplest first."""

ANY_SOURCE = "transfer:RUN"
"""For images made on the substitute, which is nothing that a command could name."""


def strongest(e: Evidence) -> str:
    """The attack of `e.broken` that broke most images; "" without any.

    Those that answer what is wrong with this model come first, unless they are beaten by more than
    chance: EOT for a random one, and the stand-ins where they break more than the gradient of the
    model does.
    """
    names = [name for name in (*GENERAL, EOT, STAND_IN, *e.transfers) if name in e.broken]
    if not names:
        return ""
    count = {name: int(flags.sum()) for name, flags in e.broken.items()}
    best = max(names, key=lambda name: count[name])
    own = max((count[name] for name in WHITE_BOX if name in count), default=0)
    fitting = [EOT, *([STAND_IN] if count.get(STAND_IN, 0) > own else [])]
    return next((one for one in fitting if one in names and not _beats(e, best, one)), best)


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
