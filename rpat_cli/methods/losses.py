"""Divergences between predictions, (B, classes) logits in, batch means out."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_per_sample(target: Tensor, logits: Tensor) -> Tensor:
    """(B,) KL(softmax target ‖ softmax logits); gradients flow into both."""
    log_q = F.log_softmax(target, dim=1)
    return (log_q.exp() * (log_q - F.log_softmax(logits, dim=1))).sum(dim=1)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """Batch mean of KL(softmax target ‖ softmax logits)."""
    return kl_per_sample(target, logits).mean()


def jsd(logits_1: Tensor, logits_2: Tensor, temperature: float) -> Tensor:
    """Batch mean of the Jensen-Shannon divergence ½KL(p1‖m) + ½KL(p2‖m) at a temperature; m = ½(p1
    + p2) >= 1e-8."""
    log_p = F.log_softmax(torch.stack([logits_1, logits_2]) / temperature, dim=-1)
    p = log_p.exp()
    log_m = p.mean(dim=0).clamp_min(1e-8).log()
    return (p * (log_p - log_m)).sum(dim=-1).mean()


def cosine_distance(target: Tensor, logits: Tensor) -> Tensor:
    """Batch mean of 1 - cosine of the angle between the two logit vectors."""
    return (1 - F.cosine_similarity(target, logits, dim=1)).mean()
