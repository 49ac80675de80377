"""The sparsifier of MeanSparse (Amini et al. 2024, arXiv 2406.05927), put into trained networks."""

import torch
from torch import Tensor, nn


class MeanSparse(nn.Module):
    """Replaces what is less than `threshold` standard deviations from its channel's mean by that
    mean; (B, C, H, W) to the same shape.

    Where a value is replaced no gradient passes: attacks that follow gradients see less than there
    is. Mean, variance and threshold come from a checkpoint; a new one (threshold 0) changes
    nothing, and training does not collect statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    threshold: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("threshold", torch.tensor(0.0))
        # The two counters of the published code, which collects the statistics itself.
        self.register_buffer("flag_update_statistics", torch.tensor(0))
        self.register_buffer("batch_num", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.running_mean.view(-1, 1, 1), self.running_var.sqrt().view(-1, 1, 1)
        return torch.where((x - mean).abs() < self.threshold * std, mean, x)
