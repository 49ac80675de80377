"""Nothing that an attack returns is trusted: it is projected onto the threat model, checked, and
classified again before it counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rpat_cli.attacks.losses import margin
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import RpatError


@dataclass(frozen=True)
class Prediction:
    """What a model makes of images; all (B,).

    `predicted`: the most likely class. `margin`: the logit of the true class minus the largest
    other one; never above 0 where the model is wrong, never below where it is right.
    `confidence`: the largest softmax probability.
    """

    predicted: Tensor
    margin: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, logits: Tensor, y: Tensor) -> "Prediction":
        """From logits (B, classes) and labels `y` (B,)."""
        return cls(logits.argmax(dim=1), margin(logits, y), logits.softmax(dim=1).amax(dim=1))

    @classmethod
    def join(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """The predictions of several batches as one, on the CPU."""
        return cls(
            predicted=torch.cat([part.predicted.cpu() for part in parts]),
            margin=torch.cat([part.margin.cpu() for part in parts]),
            confidence=torch.cat([part.confidence.cpu() for part in parts]),
        )


@dataclass(frozen=True)
class Verified:
    """What remains of an attack's result. All (B,) but `x_adv` (B, C, H, W); `distance` in the
    threat's norm.

    `prediction` is of `x_adv`. `broken`: misclassified, and inside ball and box. `inside`: in ball
    and box (after projecting).
    """

    x_adv: Tensor
    prediction: Prediction
    broken: Tensor
    inside: Tensor
    distance: Tensor


def checked_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, classes), computed without gradients in float32.

    Raises `RpatError` when the model does not return finite logits (B, classes) in float32.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        logits = model(x.float())
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RpatError(
            f"a classifier must return logits (B, classes) for B = {len(x)} images, this one "
            f"gave {given}."
        )
    if logits.dtype != torch.float32:
        raise RpatError(
            f"a classifier must return logits in float32, this one gave {_name(logits.dtype)}. "
            "Return logits.float(), and not classes or rounded numbers."
        )
    if not logits.isfinite().all():
        bad = int((~logits.isfinite().all(dim=1)).sum())
        raise RpatError(
            f"the model's output is not finite (NaN or infinity) for {bad} of {len(x)} images, "
            "so its accuracy means "
            "nothing. Look for a diverged training run or a division by zero in the model."
        )
    return logits


def check_precision(model: nn.Module) -> None:
    """Raises `RpatError` for a model with parameters of another precision than float32."""
    other = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if other:
        given = ", ".join(sorted(map(_name, other)))
        raise RpatError(
            f"evaluation is in float32, but the model has parameters in {given}. Call "
            "model.float() first."
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def batches(
    x: Tensor, y: Tensor, size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images `x` (N, C, H, W) and what belongs to each, `y` (N,), in parts of at most `size` on the
    device."""
    for x_part, y_part in zip(torch.split(x, size), torch.split(y, size), strict=True):
        yield x_part.to(device), y_part.to(device)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The most likely class (B,) of each image; raises what `checked_logits` raises."""
    return checked_logits(model, x).argmax(dim=1)


def verify(model: nn.Module, threat: Threat, x: Tensor, y: Tensor, x_adv: Tensor) -> Verified:
    """Check `x_adv`, an attack's answer to `x` (B, C, H, W) with labels `y` (B,).

    Points inside stay as they are, bit for bit; those outside are projected; those that even then
    are not inside (NaN) become the clean image again, so that they can never count.
    """
    x_adv = x_adv.detach().to(x)
    outside = ~threat.contains(x, x_adv)
    if outside.any():
        projected = threat.apply(x[outside], x_adv[outside] - x[outside])
        x_adv = x_adv.index_put((outside,), projected)
    inside = threat.contains(x, x_adv)
    x_adv = torch.where(inside.view(-1, *[1] * (x.ndim - 1)), x_adv, x)
    prediction = Prediction.of(checked_logits(model, x_adv), y)
    broken = (prediction.predicted != y) & inside
    return Verified(x_adv, prediction, broken, inside, threat.distance(x, x_adv))
