"""What a step measures: its loss, from the terms of an outcome, and the metrics of its batch."""

import torch
from torch import Tensor

from rpat_cli.methods.base import Outcome

Metrics = dict[str, Tensor]
"""Loss, loss terms and accuracies on the batch by name: scalars, still on the device."""


def loss_of(outcome: Outcome) -> Tensor:
    """The sum of all terms, in float32 also under autocast."""
    return torch.stack([term.float() for term in outcome.terms.values()]).sum()


def metrics_of(outcome: Outcome, loss: Tensor, y: Tensor) -> Metrics:
    """The loss, its terms, and the accuracies on the batch."""
    metrics = {"loss": loss, **outcome.terms, "robust_acc": _accuracy(outcome.logits_adv, y)}
    if outcome.logits is not None:
        metrics["clean_acc"] = _accuracy(outcome.logits, y)
    return {name: value.detach().float() for name, value in metrics.items()}


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The fraction of right predictions. Of label probabilities (B, classes), the most probable
    class is the right one."""
    y = y if y.ndim == 1 else y.argmax(dim=1)
    y = y[: len(logits)]  # a method may look at the first view alone
    return (logits.detach().argmax(1) == y).float().mean()
