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
    """(B,) max_{k≠y} z_k - z_y, positive where the model errs (Carlini & Wagner, IEEE S&P 2017).

    Unlike the cross-entropy it doesn't flatten out when the model is confident.
    """
    wrong = logits.gather(1, best_wrong_class(logits, y)[:, None])
    return (wrong - logits.gather(1, hard_labels(y)[:, None])).squeeze(1)


INNER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin,
}
