"""The running sums of an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rpat_cli.passes import Passes
from rpat_cli.records.metrics import EpochRecord


@dataclass
class EpochTally:
    """Sums over the steps of an epoch that are done, of which its record is made.

    They are part of a checkpoint, so that an epoch that was interrupted has the same record as one
    that was not (but for its seconds).
    """

    sums: dict[str, float] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    forward: int = 0
    backward: int = 0

    def add(self, means: Mapping[str, float], images: int, seconds: float, passes: Passes) -> None:
        """Count one step; `means` are over its images."""
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images
        self.images += images
        self.seconds += seconds
        self.forward += passes.forward
        self.backward += passes.backward

    def record(self, epoch: int, lr: float) -> EpochRecord:
        """The record of the epoch, which counts from 1; `lr` is that of its last step."""
        return EpochRecord(
            epoch=epoch,
            lr=lr,
            train={name: total / self.images for name, total in self.sums.items()},
            seconds=self.seconds,
            images_per_second=self.images / self.seconds,
            forward=self.forward,
            backward=self.backward,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "sums": dict(self.sums),
            "images": self.images,
            "passes": [self.forward, self.backward],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "EpochTally":
        return cls(dict(state["sums"]), state["images"], state["seconds"], *state["passes"])
