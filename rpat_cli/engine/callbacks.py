"""What happens beside the training: validation and the choice of the best epoch, the metrics file,
checkpoints."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.engine.loop import Callback, TrainLoop
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.metrics import EpochRecord, append_metrics, drop_metrics_after, rank

Validate = Callable[[nn.Module], dict[str, float]]


class Validation(Callback):
    """Measures `robust_acc` (and what else `validate` returns) on held-out images and remembers the
    best epoch.

    The same for each of the loop's models, apart: the averaged one has figures (`robust_acc_wa`)
    and a best epoch (`best["_wa"]`) of its own. `on_best(ending, model, record)` is told of every
    new best.

    Measuring must not disturb the training: `validate` leaves the global random state as it found
    it.
    """

    def __init__(
        self,
        validate: Validate,
        every: int,
        on_best: Callable[[str, nn.Module, EpochRecord], None],
    ) -> None:
        self.validate = validate
        self.every = every
        self.on_best = on_best
        self.best: dict[str, dict[str, float]] = {}

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        if record.epoch % self.every and record.epoch != loop.epochs:
            return
        for ending, model in loop.models.items():
            measured = self.validate(model)
            record.validation |= {f"{name}{ending}": value for name, value in measured.items()}
            if ending not in self.best or rank(measured) > rank(self.best[ending]):
                self.best[ending] = {"epoch": record.epoch, **measured}
                self.on_best(ending, model, record)

    def state_dict(self) -> dict[str, Any]:
        return {"best": {ending: dict(best) for ending, best in self.best.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = {ending: dict(best) for ending, best in state.get("best", {}).items()}


class MetricsLog(Callback):
    """One JSON line an epoch in `metrics.jsonl`. A resumed run drops the lines of epochs it is
    going to repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, loop: TrainLoop) -> None:
        drop_metrics_after(self.path, loop.epoch)

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:  # noqa: ARG002
        append_metrics(self.path, record)


class EpochLines(Callback):
    """One readable line an epoch, for log files and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self._began = 0.0
        self._first = 0

    def on_start(self, loop: TrainLoop) -> None:
        self._began, self._first = time.monotonic(), loop.epoch

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        each = (time.monotonic() - self._began) / (record.epoch - self._first)
        left = timedelta(seconds=round(each * (loop.epochs - record.epoch)))
        self.write(f"{epoch_line(record, loop.epochs)}  left {left}")


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """`epoch  3/10  loss 1.234 (ce 1.1, ra 0.1)  clean 71.2 %  robust 55.0 %  lr 0.05  1234
    img/s`"""
    terms = {
        name: value
        for name, value in record.train.items()
        if name != "loss" and not name.endswith("_acc")
    }
    parts = [
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {record.train['loss']:.4f}",
        f"({', '.join(f'{name} {value:.4f}' for name, value in terms.items())})"
        if len(terms) > 1
        else "",
        f"train robust {100 * record.train['robust_acc']:.1f} %",
        *(f"{_spoken(name)} {100 * value:.1f} %" for name, value in record.validation.items()),
        f"lr {record.lr:.4g}",
        f"{record.images_per_second:.0f} img/s",
    ]
    return "  ".join(part for part in parts if part)


def _spoken(name: str) -> str:
    """`robust` for "robust_acc", `robust wa` for that of the averaged model, "robust_acc_wa"."""
    return name.replace("_acc", "").replace("_", " ")


class Checkpoints(Callback):
    """Saves everything after each epoch, and when the training stops early, to `path`; the one
    before is kept."""

    def __init__(self, path: Path, content: Callable[[TrainLoop], dict[str, Any]]) -> None:
        self.path = path
        self.content = content

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:  # noqa: ARG002
        self.save(loop)

    def on_stop(self, loop: TrainLoop) -> None:
        self.save(loop)

    def save(self, loop: TrainLoop) -> None:
        save_checkpoint(self.path, self.content(loop), keep_previous=True)
