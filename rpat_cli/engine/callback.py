"""What a training loop calls at fixed points, and what it reports there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpat_cli.engine.loop import TrainLoop
    from rpat_cli.records.metrics import EpochRecord


@dataclass(frozen=True)
class StepRecord:
    """The metrics of one step. Epochs and steps count from 1, `steps` is the number of them in an
    epoch.

    `terms` holds the loss and its terms by name, and accuracies on the training batch as fractions.
    """

    epoch: int
    step: int
    steps: int
    terms: dict[str, float]
    lr: float
    images_per_second: float


class Callback:
    """Does something at fixed points of a training; a hook that is not overridden does nothing."""

    def on_start(self, loop: "TrainLoop") -> None:
        """The training begins, or resumes."""

    def on_step(self, loop: "TrainLoop", record: StepRecord) -> None:
        """The weights have been updated."""

    def accepts(self, loop: "TrainLoop", record: "EpochRecord") -> bool:  # noqa: ARG002
        """Whether the epoch that is done stands. If not, the loop is as it was before it, and the
        epoch is done again; nothing else hears of it."""
        return True

    def on_epoch_end(self, loop: "TrainLoop", record: "EpochRecord") -> None:
        """An epoch is done. What a callback adds to the record, those after it see."""

    def on_stop(self, loop: "TrainLoop") -> None:
        """The training ends before its last epoch, after a whole step."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback must remember across an interruption, as tensors and builtins."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
