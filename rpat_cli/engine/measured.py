"""What a step measures: the metrics of its batch."""

from torch import Tensor

from rpat_cli.methods.base import Outcome

Metrics = dict[str, Tensor]
"""Loss, loss terms and accuracies on the batch by name: scalars, still on the device."""


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
