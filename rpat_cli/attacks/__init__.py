"""Attacks by name: `ATTACKS[name](threat, **settings)` makes an `Attack`. Importing this table
imports no torch."""

from collections.abc import Callable
from typing import Any

from rpat_cli.registry import Registry

ATTACKS: Registry[Callable[..., Any]] = Registry(
    "attack",
    {
        "pgd": "rpat_cli.attacks.variants:pgd",
        "fgsm": "rpat_cli.attacks.variants:fgsm",
        "bim": "rpat_cli.attacks.variants:bim",
        "mim": "rpat_cli.attacks.variants:mim",
        "cw-pgd": "rpat_cli.attacks.variants:cw_pgd",
        "noise": "rpat_cli.attacks.variants:noise",
    },
)
"""Name -> factory `(threat, **settings) -> Attack`; the settings are the fields of
`rpat_cli.attacks.pgd.PGD`."""

SEARCHES: Registry[Callable[..., Any]] = Registry(
    "attack",
    {
        "cw-l2": "rpat_cli.attacks.minimum_norm:cw_l2",
        "ddn": "rpat_cli.attacks.minimum_norm:ddn",
        "fmn": "rpat_cli.attacks.minimum_norm:fmn",
        "hopskipjump": "rpat_cli.attacks.minimum_norm:hopskipjump",
        "boundary": "rpat_cli.attacks.minimum_norm:boundary",
        "zoo": "rpat_cli.attacks.zoo:ZOO",
    },
)
"""The same for attacks that only measure: they have a goal of their own and cannot climb a training
method's loss."""
