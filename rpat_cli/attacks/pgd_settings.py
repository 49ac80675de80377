"""Which values the settings of PGD may have."""

from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from rpat_cli.attacks.losses import INNER_LOSSES
from rpat_cli.attacks.projection import PROJECTIONS
from rpat_cli.attacks.side_effects import BnMode
from rpat_cli.attacks.start import Start
from rpat_cli.errors import ConfigError, Problem, did_you_mean

if TYPE_CHECKING:  # it imports this file
    from rpat_cli.attacks.pgd import PGD

Keep = Literal["last", "worst"]


def check(attack: "PGD") -> None:
    """Raises `ConfigError`, with all mistakes at once, for settings that PGD cannot run with."""
    problems = [
        *not_among("start", attack.start, get_args(Start)),
        *not_among("bn_mode", attack.bn_mode, get_args(BnMode)),
        *not_among("keep", attack.keep, get_args(Keep)),
        *not_among("loss", attack.loss, tuple(INNER_LOSSES)),
        *below("step_size", attack.step_size, 0),
        *below("steps", attack.steps, 0),
        *below("restarts", attack.restarts, 1),
        *below("decay", attack.decay, 0),
        *below("eot", attack.eot, 1),
        *below("start_scale", attack.start_scale, 0),
        *not_among("projection", attack.projection, tuple(PROJECTIONS)),
        *below("reach", 1 if attack.reach == "box" else attack.reach, 0),
    ]
    is_fixed_start = isinstance(attack.start, Tensor) or attack.start == "zero"
    if attack.restarts > 1 and is_fixed_start:
        message = f"{attack.restarts} restarts from one fixed start all end at the same point."
        hint = "Use start 'uniform' or 'gaussian', or restarts 1."
        problems.append(Problem("restarts", message, hint=hint))
    if attack.keep == "worst" and attack.bn_mode != "eval":
        message = (
            "'worst' drops fooled samples from the batch, which would change the batch "
            "statistics of the rest."
        )
        problems.append(Problem("keep", message, hint="Use bn_mode 'eval', or keep 'last'."))
    if problems:
        raise ConfigError(*problems)


def not_among(key: str, given: object, allowed: tuple[str, ...]) -> list[Problem]:
    """A mistake, unless the setting is a tensor or one of the names allowed."""
    if isinstance(given, Tensor) or given in allowed:
        return []
    message = f"{given!r} is none of {', '.join(allowed)}."
    return [Problem(key, message, hint=did_you_mean(str(given), allowed))]


def below(key: str, given: float, least: int) -> list[Problem]:
    """A mistake, if a number is less than the least allowed."""
    return [] if given >= least else [Problem(key, f"must be at least {least}, given {given}.")]
