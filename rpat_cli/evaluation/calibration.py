"""Is a model right as often as it is confident? The reliability diagram and the expected
calibration error (ECE).

Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv
1706.04599.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BINS = 15
"""As in the paper."""


@dataclass(frozen=True)
class Bin:
    """The `n` images with a confidence in (low, high]: their mean confidence, and their accuracy.

    All fractions. A confidence of 0 is in the first bin.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The bins with images in them, from low to high confidence."""

    bins: tuple[Bin, ...]

    @property
    def n(self) -> int:
        """The number of images."""
        return sum(part.n for part in self.bins)

    @property
    def ece(self) -> float:
        """The expected calibration error, a fraction: |accuracy - confidence| of the bins, weighted
        by their images; 0 without any."""
        gaps = sum(part.n * abs(part.accuracy - part.confidence) for part in self.bins)
        return gaps / max(self.n, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {"ece": self.ece, "bins": [asdict(part) for part in self.bins]}

    @classmethod
    def of(cls, confidence: Tensor, right: Tensor, bins: int = BINS) -> "Calibration":
        """From the confidence of each image (N,) in [0, 1] and whether it is right (N,), in bins of
        equal width."""
        # In double precision: sums of 10,000 float32 numbers lose digits that the ECE shows.
        confidence, right = confidence.double().cpu(), right.double().cpu()
        # Not torch.linspace, whose last digit depends on the processor.
        limits = [k / bins for k in range(bins + 1)]
        edges = torch.tensor(limits, dtype=torch.float64)
        where = torch.bucketize(confidence, edges[1:-1])  # an edge belongs to the bin below it
        counts = torch.bincount(where, minlength=bins).tolist()
        confidences = torch.bincount(where, weights=confidence, minlength=bins).tolist()
        rights = torch.bincount(where, weights=right, minlength=bins).tolist()
        found = []
        for k, n in enumerate(counts):
            if n:
                found.append(Bin(limits[k], limits[k + 1], n, confidences[k] / n, rights[k] / n))
        return cls(tuple(found))
