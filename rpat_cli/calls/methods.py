"""Methods and regularizers as classes: those of the tables, by the names of the classes."""

from typing import Any

from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.registry import Registry

TABLES: tuple[Registry[type[Any]], ...] = (METHODS, REGULARIZERS)


def class_names() -> list[str]:
    """`Trades`, `RobustPerception` and the others, without importing one."""
    return sorted(name for table in TABLES for name in table.attributes())


def class_named(name: str) -> type[Any] | None:
    """The class of a method or regularizer; None if none has this name."""
    for table in TABLES:
        row = table.attributes().get(name)
        if row is not None:
            return table[row]
    return None
