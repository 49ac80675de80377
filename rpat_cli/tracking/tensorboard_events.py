"""`--track tensorboard`: event files, for `tensorboard --logdir runs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rpat_cli.errors import MissingExtraError
from rpat_cli.tracking.base import Status, Tracked, Tracker, Values


class TensorBoardEvents(Tracker):
    """A scalar for each number of an epoch, at the step `epoch`; the settings of the recipe as
    hparams, with the figures on the test set as their metrics."""

    rewinds = True

    def start(self, run: Tracked) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("--track tensorboard", "tensorboard") from error
        self.settings = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in run.settings().items()
        }
        # Readers drop what an earlier session has written of this step and later ones.
        self.writer: Any = SummaryWriter(str(run.folder), purge_step=run.epochs + 1)

    def log(self, epoch: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:
        # Under the name "." the hparams are of this very run, and not of one within it.
        self.writer.add_hparams(self.settings, dict(values), run_name=".", global_step=epoch)
        self.writer.add_text("files", "\n\n".join(map(str, files)), epoch)
        self.writer.flush()

    def finish(self, status: Status) -> None:  # noqa: ARG002
        self.writer.close()
