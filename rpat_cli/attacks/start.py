"""Where in the ball an attack begins."""

from typing import Literal

import torch
from torch import Tensor

from rpat_cli.attacks.geometry import largest_to_one, per_sample
from rpat_cli.attacks.threat import Threat

Start = Literal["uniform", "gaussian", "positive", "sign", "zero", "boundary"]

GAUSSIAN_START = 0.001
"""Of TRADES (Zhang et al., ICML 2019) and MART (Wang et al., ICLR 2020): 0.001 N(0, 1) a pixel."""


def first_delta(threat: Threat, start: Start | Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
    """The perturbation of `x` (B, C, H, W) to begin with; the box is not looked at.

    "uniform" is drawn from the ball of `scale` times the radius, "sign" (Sriramanan et al., NeurIPS
    2020, arXiv 2011.14969) is plus or minus `scale` times the radius in every pixel value,
    "gaussian" 0.001 N(0, 1), "positive" 0.001 U(0, 1) (Wu et al., ICLR 2024, arXiv 2305.12118).
    "boundary" is AutoPGD's (Croce & Hein, ICML 2020, arXiv 2003.01690): noise at full length.
    """
    if isinstance(start, Tensor):
        return start.detach().to(x)
    if start == "uniform":
        return threat.geometry.random(x, scale * threat.eps)
    if start == "sign":
        return scale * threat.eps * (2 * torch.randint_like(x, 2) - 1)
    if start == "positive":
        return GAUSSIAN_START * torch.rand_like(x)
    if start == "gaussian":
        return GAUSSIAN_START * torch.randn_like(x)
    if start == "zero":
        return torch.zeros_like(x)
    return _full_length(threat, x)


def _full_length(threat: Threat, x: Tensor) -> Tensor:
    """Noise at distance eps: in Linf of the uniform cube's shape, in L2 and L1 of the normal
    distribution's, in L1 cut down to the ball, which leaves few pixels."""
    if threat.norm == "Linf":
        return threat.eps * largest_to_one(2 * torch.rand_like(x) - 1)
    noise = torch.randn_like(x)
    if threat.norm == "L1":
        return threat.clip(x, noise)
    return noise * per_sample(threat.eps / threat.geometry.norm(noise), x)
