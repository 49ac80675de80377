"""The one training loop and what goes with it. Importing this package imports no torch."""

from typing import Any

from rpat_cli.registry import Registry

COLLABORATORS: Registry[type[Any]] = Registry(
    "collaborator of the training loop",
    {
        "wa": "rpat_cli.engine.averaging:WeightAveraging",
        "awp": "rpat_cli.engine.awp:WeightPerturbation",
    },
)
"""What any method can be trained with: frozen dataclasses, whose fields are the settings in the
recipe."""
