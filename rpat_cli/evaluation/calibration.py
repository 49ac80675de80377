"""Is a model as often right as it is confident? Reliability and expected calibration error.

Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv
1706.04599.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The `n` images with a confidence in (low, high]: their mean confidence, and the fraction that
    is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The bins that hold images, from low to high confidence."""

    bins: tuple[Bin, ...]

    @property
    def n(self) -> int:
        """The number of images."""
        return sum(part.n for part in self.bins)

    @property
    def ece(self) -> float:
        """The expected calibration error, as a fraction: |accuracy - confidence|, averaged over the
        images."""
        return sum(part.n * abs(part.accuracy - part.confidence) for part in self.bins) / max(
            self.n, 1
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {"ece": self.ece, "bins": [asdict(part) for part in self.bins]}

    @classmethod
    def of(cls, confidence: Tensor, right: Tensor, bins: int = BINS) -> "Calibration":
        """From each image's confidence (N,) in [0, 1], and whether it is right (N,), in bins of
        equal width."""
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        confidence, right = confidence.double().cpu(), right.double().cpu()
        where = torch.bucketize(confidence, edges[1:-1])  # an edge belongs to the bin below it
        counts = torch.bincount(where, minlength=bins)
        sums = [
            torch.bincount(where, weights=values, minlength=bins) for values in (confidence, right)
        ]
        return cls(
            tuple(
                Bin(
                    float(edges[k]),
                    float(edges[k + 1]),
                    n,
                    *(float(total[k]) / n for total in sums),
                )
                for k, n in enumerate(counts.tolist())
                if n
            )
        )
