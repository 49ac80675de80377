"""Nothing that an attack returns is trusted: it is projected onto the threat model, checked, and
classified again before it counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rpat_cli.attacks.losses import margin
from rpat_cli.attacks.side_effects import exact_float32
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages, Images
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


class NotFiniteError(RpatError):
    """A model's output is not finite for some images of a batch: `bad` (B,) bool, images `x`.

    `first`: the number of the batch's first image among all.
    """

    def __init__(self, bad: Tensor, x: Tensor, first: int | None = None) -> None:
        self.bad, self.x = bad, x
        which = bad.nonzero().flatten().tolist()
        flat = int((x[bad].flatten(1).amin(1) == x[bad].flatten(1).amax(1)).sum())
        names = ""
        if first is not None:
            numbers = [str(first + index) for index in which[:5]]
            names = f" (number {', '.join(numbers)}{', ...' if len(which) > 5 else ''}, from 0)"
        cause = "Look for a diverged training run or a division by zero in the model."
        if len(x) == 1:
            cause += (
                " Or does it normalize over the batch, as BatchNorm does without running "
                "statistics? One image alone has no statistics."
            )
        if flat:
            cause = (
                f"{flat} of them have one value in all pixels: a standardization of each image "
                "divides by its deviation, 0 there; add a small number to it."
            )
        super().__init__(
            f"the model's output is not finite (NaN or infinity) for {len(which)} of {len(x)} "
            f"images{names}, so its accuracy means nothing. {cause}"
        )


def checked_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, classes), computed without gradients in float32.

    Raises `RpatError` when the model does not return finite logits (B, classes) in float32.
    """
    with torch.no_grad(), exact_float32(x.device):
        logits = model(x.float())
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        raise RpatError(
            f"a classifier must return logits (B, classes) for B = {len(x)} images, this one "
            f"gave {_described(logits)}."
        )
    if logits.dtype != torch.float32:
        raise RpatError(
            f"a classifier must return logits in float32, this one gave {_name(logits.dtype)}. "
            "Return logits.float(), and not classes or rounded numbers."
        )
    if not logits.isfinite().all():
        raise NotFiniteError(~logits.isfinite().all(dim=1), x)
    return logits


def check_precision(model: nn.Module) -> None:
    """Raises `RpatError` for a model with parameters of another precision than float32, with
    weights that it has not made yet, or with such that no gradient can pass."""
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise RpatError(
            f"the model has weights without a shape yet ({', '.join(lazy[:3])}): a lazy module "
            "makes them in its first forward pass. Give it a batch of images before, or use the "
            "module that states its sizes."
        )
    other = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if other:
        given = ", ".join(sorted(map(_name, other)))
        raise RpatError(
            f"evaluation is in float32, but the model has parameters in {given}. Call "
            "model.float() first."
        )
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise RpatError(
            "the model was made under torch.inference_mode(), and so no attack can follow a "
            "gradient through it. Make it outside of that block."
        )


def _described(output: object) -> str:
    """What a model returned instead of logits, and what to return in its place."""
    if isinstance(output, Tensor):
        return f"{tuple(output.shape)}"
    name = type(output).__name__
    if isinstance(output, Mapping):
        keys = ", ".join(map(repr, list(output)[:5]))
        return f"a {name} with the keys {keys}. Return the entry that holds the logits"
    if isinstance(output, tuple | list):
        parts = ", ".join(
            str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
            for part in output[:5]
        )
        return f"a {name} of {len(output)} ({parts}). Return its part that holds the logits"
    return name


def are_probabilities(logits: Tensor) -> bool:
    """Does each row of (B, classes) look like a probability distribution? Their logarithms, which
    are logits as well, do not."""
    within = (logits >= -1e-5).all() and (logits <= 1 + 1e-5).all()
    return bool(within and ((logits.sum(dim=1) - 1).abs() < 1e-4).all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def batches(
    x: AnyImages, y: Tensor, size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images `x` (N, C, H, W) and what belongs to each, `y` (N,), in parts of at most `size` on the
    device."""
    x_parts = x.batches(size, device) if isinstance(x, Images) else torch.split(x, size)
    for x_part, y_part in zip(x_parts, torch.split(y, size), strict=True):
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
