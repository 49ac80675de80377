"""Training methods and regularizers: frozen dataclasses whose fields are hyper-parameters and whose
call is the math of one training step. `METHODS` has them by the names of `--method`; by the names
of their classes (`Trades`, `Mart`, `RobustPerception`, ...) they are attributes of this module."""

from typing import Any

from rpat_cli.calls.methods import class_named, class_names
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.declare import Needs

__all__ = ["METHODS", "REGULARIZERS", "Needs", "Outcome", "StepContext", "compose", *class_names()]


def __getattr__(name: str) -> Any:
    found = class_named(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *class_names()})  # plugins may have added some
