"""Training methods and regularizers by name. Importing these tables imports no torch.

An entry is a frozen dataclass: its fields are hyper-parameters (`pydantic.TypeAdapter(cls)` checks
them), its call is the math. `rpat_cli.methods.compose.compose` puts regularizers on a method.
"""

from typing import Any

from rpat_cli.registry import Registry

METHODS: Registry[type[Any]] = Registry(
    "method",
    {
        "standard": "rpat_cli.methods.standard:Standard",
        "noise": "rpat_cli.methods.pgd:Noise",
        "pgd": "rpat_cli.methods.pgd:Pgd",
        "trades": "rpat_cli.methods.trades:Trades",
        "mart": "rpat_cli.methods.mart:Mart",
        "consistency": "rpat_cli.methods.consistency:ConsistencyPgd",
        "rebat": "rpat_cli.methods.rebat:Rebat",
    },
)

REGULARIZERS: Registry[type[Any]] = Registry(
    "regularizer",
    {
        "ra": "rpat_cli.methods.robust_perception:RobustPerception",
        "consistency": "rpat_cli.methods.consistency:Consistency",
    },
)
