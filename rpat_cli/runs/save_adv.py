"""`--save-adv FILE.npz`: the worst adversarial example of every image of an evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rpat_cli.data.base import Split
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.verify import Prediction, checked_logits
from rpat_cli.evaluation.worst_case import WorstCase
from rpat_cli.records.adversarial_file import hash_of, write_adversarial
from rpat_cli.runs.target import OpenedTarget, under_each_threat

PART = 256
"""Images in memory at a time."""


def check_free(opened: OpenedTarget, path: Path) -> None:
    """Raise `ConfigError` for a file that is there already: nothing is overwritten."""
    if path.suffix != ".npz":
        message = f"{path} must end in .npz."
        raise ConfigError(Problem("", message, "--save-adv", "Example: --save-adv adv.npz"))
    for each in under_each_threat(opened):
        own = _path_under(each, path)
        if own.exists() or own.is_symlink():
            message = f"{own} is there already, and is not overwritten."
            raise ConfigError(Problem("", message, "--save-adv", "Name another file."))


def _path_under(opened: OpenedTarget, path: Path) -> Path:
    """Of several threats each has a file of its own: FILE_Linf_0.03137.npz."""
    if len(under_each_threat(opened)) == 1:
        return path
    return path.with_stem(f"{path.stem}_{opened.threat.norm}_{opened.threat.eps:.4g}")


@dataclass
class Saving:
    """The images of an evaluation, ready to be written, part after part; what is said of each is
    there once they are. `number` (N,) are the images' numbers in the test set."""

    opened: OpenedTarget
    images: Split
    worst: WorstCase
    evaluation: Evaluation
    number: torch.Tensor
    predictions: list[int] = field(default_factory=list)
    attacks: list[str] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def write(self, path: Path) -> Path:
        """Write the file. Every image is classified again, as it is written."""
        shape = (len(self.images), *self.images.shape)
        path = _path_under(self.opened, path)
        return write_adversarial(path, shape, self._parts(), self._others)

    def _parts(self) -> Iterator[NDArray[np.float32]]:
        device, model = self.opened.compute.device, self.opened.model
        order = torch.arange(len(self.images))
        start = 0
        for x, y in self.images.batches(order, PART, device):
            clean = Prediction.of(checked_logits(model, x), y)
            x_adv, names = self.worst.replaced(start, x, clean.margin)
            self.predictions += checked_logits(model, x_adv).argmax(1).tolist()
            self.attacks += names
            self.hashes += [hash_of(image) for image in x.cpu().numpy()]
            start += len(x)
            yield x_adv.cpu().numpy()

    def _others(self) -> dict[str, NDArray[Any]]:
        threat = self.evaluation.threat
        return {
            "labels": self.evaluation.y.numpy(),
            "predictions": np.array(self.predictions, dtype=np.int64),
            "clean_predictions": self.evaluation.clean_predicted.numpy(),
            "index": self.number.numpy(),
            "attack": np.array(self.attacks, dtype=np.str_),
            "image_hash": np.frombuffer(b"".join(self.hashes), np.uint8).reshape(-1, 16),
            "threat": np.array(f"{threat.norm}:{threat.eps!r}"),
        }
