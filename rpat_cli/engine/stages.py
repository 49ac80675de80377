"""Settings that change in the middle of a training."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class FromEpoch(Generic[T]):
    """A value that replaces another from `epoch` (counted from 0) on."""

    epoch: int
    value: T


def in_force(first: T, later: FromEpoch[T] | None, epoch: int) -> T:
    """The value in force in epoch `epoch` (counted from 0)."""
    return first if later is None or epoch < later.epoch else later.value
