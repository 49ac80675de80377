"""Where in the ball an attack begins."""

from typing import Literal

import torch
from torch import Tensor

from rpat_cli.attacks.geometry import largest_to_one, per_sample
from rpat_cli.attacks.threat import Threat

Start = Literal["uniform", "gaussian", "zero", "boundary"]

GAUSSIAN_START = 0.001
"""Of TRADES (Zhang et al., ICML 2019) and MART (Wang et al., ICLR 2020): 0.001 N(0, 1) a pixel."""


def first_delta(threat: Threat, start: Start | Tensor, x: Tensor) -> Tensor:
    """The perturbation of `x` (B, C, H, W) to begin with, in the ball; the box is not looked at.

    "boundary" is AutoPGD's (Croce & Hein, ICML 2020, arXiv 2003.01690): noise at full length.
    """
    if isinstance(start, Tensor):
        return start.detach().to(x)
    if start == "uniform":
        return threat.geometry.random(x, threat.eps)
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
