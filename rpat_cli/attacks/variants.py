"""Attacks that are PGD with some of its settings fixed.

Every factory takes a `Threat` and any other field of `PGD` by name; it raises `ConfigError` for an
unknown name and for values that `PGD` does not allow.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, unknown

_SETTINGS = [field.name for field in fields(PGD) if field.name != "threat"]


def _pgd(threat: Threat, fixed: Mapping[str, Any], settings: Mapping[str, Any]) -> PGD:
    strangers = [name for name in settings if name not in _SETTINGS]
    if strangers:
        raise ConfigError(*(unknown("attack setting", name, _SETTINGS) for name in strangers))
    usual = {"step_size": threat.default_step_size(), "steps": 10}
    return PGD(threat, **{**usual, **fixed, **settings})


def pgd(threat: Threat, **settings: Any) -> PGD:
    """Madry et al., ICLR 2018, arXiv 1706.06083: ten steps from a uniform start, with the
    norm's usual step size."""
    return _pgd(threat, {}, settings)


def fgsm(threat: Threat, **settings: Any) -> PGD:
    """Goodfellow et al., ICLR 2015, arXiv 1412.6572: one step of length eps, from x itself."""
    return _pgd(threat, {"step_size": threat.eps, "steps": 1, "start": "zero"}, settings)


def bim(threat: Threat, **settings: Any) -> PGD:
    """Kurakin et al., 2017 (arXiv 1607.02533): iterated FGSM, from x itself."""
    return _pgd(threat, {"start": "zero"}, settings)


def mim(threat: Threat, **settings: Any) -> PGD:
    """Dong et al., CVPR 2018, arXiv 1710.06081: iterated FGSM with momentum, decay 1 and step size
    eps / steps."""
    step_size = threat.eps / max(1, settings.get("steps", 10))
    return _pgd(threat, {"start": "zero", "decay": 1.0, "step_size": step_size}, settings)


def cw_pgd(threat: Threat, **settings: Any) -> PGD:
    """PGD on the margin loss max_{k≠y} z_k - z_y of Carlini & Wagner (IEEE S&P 2017, arXiv
    1608.04644), as in Madry et al. (ICLR 2018)."""
    return _pgd(threat, {"loss": "margin"}, settings)


def noise(threat: Threat, *, draws: int = 1, **settings: Any) -> PGD:
    """Uniform noise in the ball, the baseline that every attack must beat; each sample keeps the
    worst of `draws` draws."""
    return _pgd(threat, {"step_size": 0.0, "steps": 0, "restarts": draws}, settings)
