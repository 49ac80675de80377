"""Activations by the name that a network's name ends with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class PSSiLU(nn.Module):
    """x (sigmoid(|alpha| x) - |beta|) / (1 - |beta|), with two trained numbers (Dai et al. 2022,
    arXiv 2110.05626). It begins as SiLU; one module serves a whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([1e-8]))
        self.alpha = nn.Parameter(torch.tensor([1.0]))

    def forward(self, x: Tensor) -> Tensor:
        beta = self.beta.abs()
        return x * (torch.sigmoid(self.alpha.abs() * x) - beta) / (1 - beta)


ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "relu": lambda: F.relu,  # a function: networks print as they did when there was no other
    "silu": nn.SiLU,
    "pssilu": PSSiLU,
}


def activation_of(name: str) -> Activation:
    """One activation, to be shared by all layers of a network."""
    return ACTIVATIONS[name]()
