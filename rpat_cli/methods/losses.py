"""Divergences between predictions, (B, classes) logits in, batch means out.

All are computed in float32 or more: float16 cannot hold the square, nor always the difference, of
two saturated logits, and a clamp at 1e-8 is 0 there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rpat_cli.attacks.forward import full_precision


def kl_per_sample(target: Tensor, logits: Tensor) -> Tensor:
    """(B,) KL(softmax target ‖ softmax logits); gradients flow into both."""
    log_q = F.log_softmax(full_precision(target), dim=1)
    log_p = F.log_softmax(full_precision(logits), dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """Batch mean of KL(softmax target ‖ softmax logits)."""
    return kl_per_sample(target, logits).mean()


def jsd(logits_1: Tensor, logits_2: Tensor, temperature: float) -> Tensor:
    """Batch mean of the Jensen-Shannon divergence ½KL(p1‖m) + ½KL(p2‖m) at a temperature; m = ½(p1
    + p2) >= 1e-8."""
    both = full_precision(torch.stack([logits_1, logits_2]))
    log_p = F.log_softmax(both / temperature, dim=-1)
    p = log_p.exp()
    log_m = p.mean(dim=0).clamp_min(1e-8).log()
    return (p * (log_p - log_m)).sum(dim=-1).mean()


def mse(target: Tensor, logits: Tensor) -> Tensor:
    """Mean squared difference over batch and classes."""
    return F.mse_loss(full_precision(logits), full_precision(target))


def probabilities(logits: Tensor) -> Tensor:
    """(B, classes) softmax, in float32 or more."""
    return F.softmax(full_precision(logits), dim=1)


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """(B,) Σ_k (p_k - q_k)² of two (B, classes) predictions: the LSE of SCORE (arXiv 2202.10103)
    and the guidance of GAT (arXiv 2011.14969)."""
    return (p - q).square().sum(dim=1)


def label_probabilities(y: Tensor, like: Tensor) -> Tensor:
    """(B, classes) probabilities of labels that may be (B,) classes; `like` are (B, classes)
    logits."""
    return F.one_hot(y, like.shape[1]).to(like.dtype) if y.ndim == 1 else y.to(like.dtype)


NO_DIRECTION = 1e-4
"""Logits shorter than this have no direction to compare: the gradient of their angle grows as one
over their length."""


def cosine_distance(target: Tensor, logits: Tensor) -> Tensor:
    """Batch mean of 1 - cosine of the angle between the two logit vectors; a sample with (almost)
    no logits on one side counts as 1 - cosine without a gradient."""
    target, logits = full_precision(target), full_precision(logits)
    distance = 1 - F.cosine_similarity(target, logits, dim=1)
    shorter = torch.minimum(target.detach().norm(dim=1), logits.detach().norm(dim=1))
    return torch.where(shorter > NO_DIRECTION, distance, distance.detach()).mean()
