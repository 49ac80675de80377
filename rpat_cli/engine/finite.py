"""What is not finite gets neither into the weights nor into a checkpoint: the loss, the gradient,
and the weights themselves are looked at."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rpat_cli.errors import DivergenceError

ADVICE = (
    "The last checkpoint is kept. Try a smaller learning rate (--lr), a warm-up (--warmup-epochs) "
    "or --precision fp32."
)


def largest_gradient(model: nn.Module) -> Tensor:
    """The largest |gradient| of all parameters, a scalar on their device: NaN or infinite if any
    entry is. Waits for nothing."""
    gradients = [p.grad.detach() for p in model.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(gradients, norm_type=math.inf).float()


def check_loss(metrics: Mapping[str, float], place: str) -> None:
    """Raises `DivergenceError` for the terms of a loss, or their sum "loss", that are not
    finite."""
    diverged = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if diverged:
        # That the sum of the terms is not finite either goes without saying.
        terms = [text for text in diverged if not text.startswith("loss is ")]
        raise _divergence(place, ", ".join(terms or diverged))


def check_gradient(model: nn.Module, largest: float, place: str) -> None:
    """Raises `DivergenceError` if `largest`, the value of `largest_gradient`, is not finite."""
    if math.isfinite(largest):
        return
    wrong = _first_of((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    raise _divergence(
        place,
        f"the loss is finite, but the gradient of {wrong} is not finite, as where a network "
        "divides by 0 or takes the root of 0",
    )


def check_weights(model: nn.Module, place: str) -> None:
    """Raises `DivergenceError` if a weight, or a running statistic of BatchNorm, is not finite:
    those of a step too large for float32. Call it before a checkpoint is written."""
    statistics = (
        (name, buffer)
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    )
    values = [*model.named_parameters(), *statistics]
    finite = torch.stack([value.detach().isfinite().all() for _, value in values] or [_TRUE])
    if not finite.all():
        raise _divergence(place, f"the weights of {_first_of(iter(values))} are not finite")


_TRUE = torch.tensor(True)


def _first_of(values: Iterator[tuple[str, Tensor]]) -> str:
    """The name of the first that is not finite."""
    return next((name for name, value in values if not value.detach().isfinite().all()), "a weight")


def _divergence(place: str, what: str) -> DivergenceError:
    return DivergenceError(f"the training diverged in {place}: {what}. {ADVICE}")
