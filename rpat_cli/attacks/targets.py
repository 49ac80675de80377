"""Which classes a targeted attack tries, and in which order.

An order takes a model in eval mode, images `x` (B, C, H, W), their classes `y` (B,) and the clean
logits (B, classes), and gives (B, T) classes, the most promising first; never the true one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.geometry import nonzero

NEVER = 1e300
"""The score of a class that is no candidate."""

Order = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def by_logits(model: nn.Module, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG001
    """The likeliest classes first (AutoAttack; Minimum-Margin attack)."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True)[:, :-1]


def by_malt(
    model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, candidates: int, norm: str
) -> Tensor:
    """MALT (Melamed, Yehudai & Shamir, 2024): the classes whose boundaries are nearest, if the
    model were linear."""
    chosen = by_logits(model, x, y, logits)[:, :candidates]
    scores = malt_scores(model, x, y, chosen, norm)
    order = scores.gather(1, chosen).argsort(dim=1, stable=True)
    return chosen.gather(1, order)


def malt_scores(model: nn.Module, x: Tensor, y: Tensor, candidates: Tensor, norm: str) -> Tensor:
    """(B, classes) (max_k z_k - z_c) / ‖∇_x (z_c - z_y)‖_q of the candidates (B, T), q the dual of
    the norm of the threat; 0 where that gradient is zero, `NEVER` elsewhere.

    One forward pass, and a backward pass for each candidate.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = full_precision(model(x))
        own = logits.gather(1, y[:, None])
        top = logits.detach().amax(dim=1)
        scores = torch.full_like(logits.detach(), NEVER if logits.dtype == torch.float64 else 1e38)
        for c in candidates.T:
            gap = (logits.gather(1, c[:, None]) - own).sum()
            grad = None
            if gap.requires_grad:
                (grad,) = torch.autograd.grad(gap, x, retain_graph=True, allow_unused=True)
            grad = torch.zeros_like(x) if grad is None else grad
            length = _DUAL[norm](grad.flatten(1).nan_to_num(nan=0.0))
            height = top - logits.detach().gather(1, c[:, None]).squeeze(1)
            score = (height / nonzero(length)).where(length > 0, torch.zeros_like(length))
            scores.scatter_(1, c[:, None], score[:, None])
    return scores


_DUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "Linf": lambda grad: grad.abs().sum(dim=1),
    "L2": lambda grad: grad.square().sum(dim=1).sqrt(),
    "L1": lambda grad: grad.abs().amax(dim=1),
}
