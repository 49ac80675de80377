"""What an attack is, for those who use one (methods, the engine, evaluation)."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from rpat_cli.errors import DataError

LossFn: TypeAlias = Callable[[Tensor], Tensor]
"""From logits (B, classes) to what the attack drives up: a scalar, or (B,), whose sum counts."""

LossAt: TypeAlias = Callable[[Tensor], LossFn]
"""From indices into the batch to the inner loss of those samples."""


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


def check_pixels(model: nn.Module, x: Tensor) -> None:
    """Raises `DataError` for images that are not in [0, 1], which an attack would clip to it.

    Not in a training on a GPU: looking at pixels there would wait for the device, and those of a
    training come from rpat.
    """
    if not x.numel() or (model.training and x.device.type != "cpu"):
        return
    low, high = (float(bound) for bound in x.detach().aminmax())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            f"an attack takes pixels in [0, 1], given {low:.4g} to {high:.4g}. Divide bytes by "
            "255; normalization belongs in the model."
        )


ROUNDING = 1e-2
"""More than what half precision and interpolation do to pixels."""
