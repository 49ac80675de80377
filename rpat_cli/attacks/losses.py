"""Inner losses: what an attack drives up, per sample."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def hard_labels(y: Tensor) -> Tensor:
    """(B,) classes, from classes or from (B, classes) label probabilities (MixUp, label
    smoothing)."""
    return y if y.ndim == 1 else y.argmax(dim=1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) cross-entropies; `y` is (B,) classes or (B, classes) probabilities."""
    return F.cross_entropy(logits, y, reduction="none")


def best_wrong_class(scores: Tensor, y: Tensor) -> Tensor:
    """(B,) the highest-scoring class other than the true one."""
    return scores.scatter(1, hard_labels(y)[:, None], -torch.inf).argmax(dim=1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) z_y - max_{k≠y} z_k of logits (B, classes): positive where the model is right."""
    wrong = logits.gather(1, best_wrong_class(logits, y)[:, None])
    return (logits.gather(1, hard_labels(y)[:, None]) - wrong).squeeze(1)


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) the negative margin: the loss f_6 of Carlini & Wagner (IEEE S&P 2017, arXiv 1608.04644).

    Unlike the cross-entropy, it does not flatten out where the model is confident.
    """
    return -margin(logits, y)


INNER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin_loss,
}
"""What the setting `loss` of an attack may be, by name; larger is worse for the model."""
