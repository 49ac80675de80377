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


def dlr_loss(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) the difference of logits ratio (max_{k≠y} z_k - z_y) / (z_π1 - z_π3), π the classes in
    descending order of their logits (Croce & Hein, ICML 2020, arXiv 2003.01690).

    Shifting and scaling the logits does not change it. Of 2 classes, which have no third logit,
    it is the margin loss.
    """
    if logits.shape[1] < DLR_CLASSES:
        return margin_loss(logits, y)
    ordered = logits.topk(3, dim=1).values
    return margin_loss(logits, y) / (ordered[:, 0] - ordered[:, 2] + TINY)


def probability_margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) max_{k≠y} p_k - p_y, p the softmax (Xie et al., 2024, arXiv 2411.15210)."""
    return margin_loss(logits.softmax(dim=1), y)


def targeted_cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001
    """(B,) log p_t."""
    return -F.cross_entropy(logits, target, reduction="none")


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(B,) z_t - z_y, of logits or of probabilities."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(B,) (z_t - z_y) / (z_π1 - (z_π3 + z_π4) / 2), from the same source as `dlr_loss`.

    Of fewer than 4 classes it is z_t - z_y.
    """
    if logits.shape[1] < TARGETED_DLR_CLASSES:
        return targeted_margin(logits, y, target)
    ordered = logits.topk(4, dim=1).values
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return targeted_margin(logits, y, target) / (scale + TINY)


def targeted_probability_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(B,) p_t - p_y."""
    return targeted_margin(logits.softmax(dim=1), y, target)


TINY = 1e-12
"""Keeps the ratios finite where logits are equal."""

DLR_CLASSES, TARGETED_DLR_CLASSES = 3, 4
"""What the two ratios are defined for."""

INNER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin_loss,
    "dlr": dlr_loss,
    "pm": probability_margin_loss,
}
"""What the setting `loss` of an attack may be, by name; larger is worse for the model."""

TARGETED_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": targeted_cross_entropy,
    "margin": targeted_margin,
    "dlr": targeted_dlr,
    "pm": targeted_probability_margin,
}
"""The same toward one class, from logits, `y` (B,) and `target` (B,)."""


def replaced(loss: str, classes: int, *, targeted: bool = False) -> tuple[str, ...]:
    """A note where a loss is not defined for so many classes, and what stands in for it."""
    least = TARGETED_DLR_CLASSES if targeted else DLR_CLASSES
    if loss != "dlr" or classes >= least:
        return ()
    kind = "targeted DLR loss" if targeted else "DLR loss"
    return (
        f"the {kind} needs at least {least} classes, the model has {classes}: the margin loss "
        "took its place",
    )
