"""Attacks that a user brought: called on copies, and held to what an attack has to return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rpat_cli.attacks.base import LossFn
from rpat_cli.errors import UserCodeError
from rpat_cli.user_code import calling, where_defined

Perturb = Callable[[Tensor, Tensor], Tensor]
"""From images (B, C, H, W) in [0, 1] and classes (B,) to adversarial images."""


def attacked(perturb: Perturb, x: Tensor, y: Tensor) -> Tensor:
    """What an attack makes of copies of `x` (B, C, H, W) and `y` (B,): one that works in place must
    not change what its answer is compared with.

    Raises `UserCodeError` for an attack of a user's that cannot be called, or returns something
    else than images of the same shape.
    """
    with calling(perturb, "attack(model, x, y)"):
        x_adv = perturb(x.clone(), y.clone())
    return _checked(perturb, x_adv, x)


@dataclass(frozen=True)
class BroughtAttack:
    """A user's attack in training: an `Attack`, as methods call one."""

    attack: Any

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with calling(self.attack, "attack(model, x, y)"):
            x_adv = self.attack(model, x.clone(), y.clone())
        return _checked(self.attack, x_adv, x)

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """Raises `UserCodeError` for an attack that has one inner loss only."""
        form = "perturb(model, x, loss_fn, *, start=None)"
        if not hasattr(self.attack, "perturb"):
            raise UserCodeError(
                f"{where_defined(self.attack)}: this training method gives its attack another "
                f"inner loss, and calls {form}, which this one does not have. Add it, or train "
                "with a method that calls attack(model, x, y), such as pgd."
            )
        with calling(self.attack.perturb, form):
            x_adv = self.attack.perturb(model, x.clone(), loss_fn, start=start)
        return _checked(self.attack, x_adv, x)


def _checked(attack: Any, x_adv: Any, x: Tensor) -> Tensor:
    if isinstance(x_adv, Tensor) and x_adv.shape == x.shape:
        return x_adv
    given = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
    raise UserCodeError(
        f"{where_defined(attack)}: an attack must return images x_adv of the shape of x, "
        f"{tuple(x.shape)}; this one returned {given}."
    )
