"""Settings that change in the middle of a training."""

from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, cast

from rpat_cli.attacks.base import Attack

T = TypeVar("T")


@dataclass(frozen=True)
class FromEpoch(Generic[T]):
    """A value that replaces another from `epoch` (counted from 0) on."""

    epoch: int
    value: T


def in_force(first: T, later: FromEpoch[T] | None, epoch: int) -> T:
    """The value in force in epoch `epoch` (counted from 0)."""
    return first if later is None or epoch < later.epoch else later.value


class CanGrow(Protocol):
    """An attack that there are smaller ones of, such as `PGD`."""

    def scaled(self, share: float) -> Attack: ...


@dataclass(frozen=True)
class EpsWarmup:
    """An attack whose radius and step size rise linearly from 0 over `epochs`: at every step (N-
    FGSM's for SVHN), or at the beginning of every epoch, the first being 1/epochs (IKL's)."""

    epochs: float
    per: Literal["step", "epoch"] = "step"

    def at(self, attack: Attack, done: float) -> Attack:
        """`attack`, which can grow, as it is after so many epochs."""
        point = done if self.per == "step" else int(done) + 1
        if point >= self.epochs:
            return attack
        return cast(CanGrow, attack).scaled(point / self.epochs)
