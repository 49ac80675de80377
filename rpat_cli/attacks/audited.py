"""AutoAttack on a random sample of the images that other attacks leave."""

from collections.abc import Iterable
from dataclasses import dataclass

from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, Problem


@dataclass(frozen=True)
class Audited:
    """`autoattack` attacks as many images as it takes to bound what it would break of the others.

    width: the bound that is asked for, in points of accuracy. level: how surely it holds. Which
    images, and how many, is the business of evaluation (`rpat_cli.evaluation.audit`). Raises
    `ConfigError` for a width or level that is none.
    """

    autoattack: AutoAttack
    width: float
    level: float

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.width <= 100:
            message = f"{self.width:g} must be points of accuracy, above 0 and at most 100."
            problems.append(Problem("width", message, hint="Usual: 0.25 or 0.5."))
        if not 0.5 <= self.level < 1:
            message = f"{self.level:g} must be a probability, at least 0.5 and below 1."
            problems.append(Problem("level", message, hint="Usual: 0.95."))
        if problems:
            raise ConfigError(*problems)


def audited(
    threat: Threat, *, width: float, level: float = 0.95, attacks: Iterable[str] = ()
) -> Audited:
    """An audit with the standard version of AutoAttack, or those of its `attacks` that the suite
    does not run on all images already."""
    return Audited(AutoAttack(threat, attacks=tuple(attacks)), width, level)
