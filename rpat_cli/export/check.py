"""Does what was exported predict the same?"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rpat_cli.attacks.side_effects import exact_float32, frozen
from rpat_cli.data.base import Split
from rpat_cli.export.formats import Model, Predictor

BATCH = 100

TOLERANCE = 1e-3
"""Largest difference of logits, as a share of the largest logit (or of 1): other programs sum in
another order."""


@dataclass(frozen=True)
class Checked:
    """Of `n` images, on `same` the exported model predicts the class that the model does;
    `difference` is the largest of any logit. `images` says which they were."""

    n: int
    same: int
    difference: float
    images: str
    within: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return asdict(self)

    @property
    def text(self) -> str:
        return (
            f"the same class on {self.same} of {self.n} {self.images}, logits differ by at most "
            f"{self.difference:.1e}"
        )


def compare(model: Model, exported: Predictor, images: Split | None, most: int | None) -> Checked:
    """Compare on the first `most` of the images (all if None); without any, on random ones."""
    n = 200 if images is None else len(images)
    n = n if most is None else min(n, most)
    same, difference, scale = 0, 0.0, 1.0
    cpu = torch.device("cpu")
    with torch.no_grad(), exact_float32(cpu), frozen(model.module) as module:
        for start in range(0, n, BATCH):
            order = torch.arange(start, min(start + BATCH, n))
            if images is None:
                generator = torch.Generator().manual_seed(start)
                x = torch.rand(len(order), *model.architecture.shape, generator=generator)
            else:
                x, _ = next(iter(images.batches(order, BATCH, cpu)))
            expected, found = module(x.clone()), exported(x.clone())
            same += int((expected.argmax(1) == found.argmax(1)).sum())
            # max() ignores NaN, and a file that gives it must not pass.
            gap = (expected - found).abs().nan_to_num(nan=math.inf)
            difference = max(difference, float(gap.max()))
            scale = max(scale, float(expected.abs().max()))
    kind = "random images" if images is None else "test images"
    return Checked(n, same, difference, kind, difference <= TOLERANCE * scale)
