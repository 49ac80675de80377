"""What an attack is, for those who use one (methods, the engine, evaluation)."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor, nn

LossFn: TypeAlias = Callable[[Tensor], Tensor]
"""From logits (B, classes) to the scalar that the attack drives up."""


class Attack(Protocol):
    """Looks for `x_adv` near `x` on which the model fails.

    `x` and the returned `x_adv` are (B, C, H, W) with pixels in [0, 1]; `y` is (B,) int64. An
    attack leaves every parameter, gradient and mode of the model as it found them.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack with the summed cross-entropy to `y` as inner loss."""
        ...

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """Attack with any inner loss; `start` is the perturbation to begin from (default: the
        attack's own start)."""
        ...
