"""What changes in the middle of a training."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class FromEpoch(Generic[T]):
    """What takes another thing's place from `epoch` (from 0) on."""

    epoch: int
    value: T


def in_force(first: T, later: FromEpoch[T] | None, epoch: int) -> T:
    """What holds in epoch `epoch` (from 0)."""
    return first if later is None or epoch < later.epoch else later.value
