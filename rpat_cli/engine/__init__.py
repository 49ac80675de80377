"""The one training loop and its parts. Importing this package does not import torch."""

from typing import Any, Literal

from rpat_cli.registry import Registry

OnCollapse = Literal["off", "warn", "stop", "rollback"]
"""What the collapse guard does; "off": there is none."""

COLLABORATORS: Registry[type[Any]] = Registry(
    "collaborator of the training loop",
    {
        "wa": "rpat_cli.engine.averaging:WeightAveraging",
        "awp": "rpat_cli.engine.awp:WeightPerturbation",
        "sam": "rpat_cli.engine.sam:SharpnessAware",
    },
)
"""What any method can be combined with: frozen dataclasses whose fields are the settings of a
recipe."""

OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    {
        "sgd": "rpat_cli.engine.optimizers:SGD",
        "adamw": "rpat_cli.engine.optimizers:ADAMW",
    },
)
"""An `OptimizerRow` for each."""
