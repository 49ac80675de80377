"""What happens around the training: validation and the choice of the best epoch, the metrics file,
progress lines, checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.engine.callback import Callback
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.metrics import (
    AVERAGED,
    EpochRecord,
    append_metrics,
    drop_metrics_after,
    rank,
)
from rpat_cli.text import remaining

Validate = Callable[[nn.Module], dict[str, float]]
"""From a model to metrics by name, fractions: `robust_acc`, `clean_acc`."""


class Validation(Callback):
    """Validates every `every` epochs, and after the last one, and keeps track of the best epoch.

    Each of the loop's models is validated by itself: the averaged one has metrics (`robust_acc_wa`)
    and a best epoch (`best["_wa"]`) of its own. `on_best(suffix, model, record)` is called for
    every new best.

    `validate` must leave the global random state as it was, or it would change the training.
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
        self._latest: dict[str, float] = {}

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        if record.epoch % self.every and record.epoch != loop.epochs:
            return
        for suffix, model in loop.models.items():
            metrics = self.validate(model)
            record.validation |= {f"{name}{suffix}": value for name, value in metrics.items()}
            if suffix not in self.best or rank(metrics) > rank(self.best[suffix]):
                self.best[suffix] = {"epoch": record.epoch, **metrics}
                self.on_best(suffix, model, record)
        self._latest = {"epoch": record.epoch, **record.validation}

    def of_now(self, loop: TrainLoop) -> dict[str, float]:
        """The metrics of the models as they are now; empty if they were trained since the last
        validation."""
        if loop.step or self._latest.get("epoch") != loop.epoch:
            return {}
        return {name: value for name, value in self._latest.items() if name != "epoch"}

    def state_dict(self) -> dict[str, Any]:
        best = {suffix: dict(best) for suffix, best in self.best.items()}
        return {"best": best, "latest": dict(self._latest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = {suffix: dict(best) for suffix, best in state.get("best", {}).items()}
        self._latest = dict(state.get("latest", {}))  # earlier versions did not save it


class MetricsLog(Callback):
    """Writes one JSON line per epoch to `metrics.jsonl`. A resumed run first drops the lines of the
    epochs that it is going to repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, loop: TrainLoop) -> None:
        drop_metrics_after(self.path, loop.epoch)

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:  # noqa: ARG002
        append_metrics(self.path, record)


class EpochLines(Callback):
    """Writes one readable line per epoch: a whole one for log files, or what is most wanted of it
    in `width` columns."""

    def __init__(self, write: Callable[[str], None], width: int | None = None) -> None:
        self.write = write
        self.width = width
        self._began = 0.0
        self._first = 0

    def on_start(self, loop: TrainLoop) -> None:
        self._began, self._first = time.monotonic(), loop.epoch

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        each = (time.monotonic() - self._began) / (record.epoch - self._first)
        epochs = loop.epochs - record.epoch
        left = f"left {remaining(each * epochs)}" if epochs else ""
        if self.width is None:
            self.write("  ".join(filter(None, (epoch_line(record, loop.epochs), left))))
        else:
            self.write(short_epoch_line(record, loop.epochs, left, self.width))


def short_epoch_line(record: EpochRecord, epochs: int, left: str, width: int) -> str:
    """`epoch  3/10  loss 1.234  clean 71.2 %  robust 55.0 %  1234 img/s  left 12 s`: as much of it
    as `width` columns hold; accuracies and the time left always."""
    validation = record.validation
    accuracies = [
        f"{_label(name)} {100 * value:.1f} %"
        for name, value in validation.items()
        if not name.endswith(AVERAGED)
    ]
    averaged = [
        f"{100 * value:.1f}" for name, value in validation.items() if name.endswith(AVERAGED)
    ]
    if averaged:
        accuracies.append(f"wa {'/'.join(averaged)} %")
    number = f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}"
    optional = [
        f"loss {record.train['loss']:.3f}",
        f"{record.images_per_second:.0f} img/s",
        f"lr {record.lr:.3g}",
    ]
    for shown in range(len(optional), -1, -1):
        loss, rest = optional[: min(shown, 1)], optional[1:shown]
        line = "  ".join(filter(None, [number, *loss, *accuracies, *rest, left]))
        if len(line) <= width:
            break
    return line


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """`epoch  3/10  loss 1.234 (ce 1.1, ra 0.1)  clean 71.2 %  robust 55.0 %  lr 0.05  1234
    img/s`"""
    parts = [
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {record.train['loss']:.4f}",
    ]
    terms = [
        f"{name} {value:.4f}"
        for name, value in record.train.items()
        if name != "loss" and not name.endswith("_acc")
    ]
    if len(terms) > 1:
        parts.append(f"({', '.join(terms)})")
    parts.append(f"train robust {100 * record.train['robust_acc']:.1f} %")
    for name, value in record.validation.items():
        parts.append(f"{_label(name)} {100 * value:.1f} %")
    parts += [f"lr {record.lr:.4g}", f"{record.images_per_second:.0f} img/s"]
    return "  ".join(parts)


def _label(name: str) -> str:
    """`robust` for "robust_acc", `robust wa` for "robust_acc_wa", that of the averaged model."""
    return name.replace("_acc", "").replace("_", " ")


class Checkpoints(Callback):
    """Saves a checkpoint to `path` after each epoch and when the training stops early; the previous
    one is kept. With `at_start` also when a training is resumed, over the one that is there."""

    def __init__(
        self, path: Path, content: Callable[[TrainLoop], dict[str, Any]], *, at_start: bool = False
    ) -> None:
        self.path = path
        self.content = content
        self.at_start = at_start

    def on_start(self, loop: TrainLoop) -> None:
        if self.at_start and (loop.epoch or loop.step):
            save_checkpoint(self.path, self.content(loop))

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:  # noqa: ARG002
        self.save(loop)

    def on_stop(self, loop: TrainLoop) -> None:
        self.save(loop)

    def save(self, loop: TrainLoop) -> None:
        save_checkpoint(self.path, self.content(loop), keep_previous=True)
