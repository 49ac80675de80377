"""The worst adversarial examples of an evaluation, chosen while its chunks come in."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.records.examples import MOST, PER_CLASS, Examples, read_arrays, write_arrays


def worst_rows(broken: Tensor, margin: Tensor, y: Tensor) -> Tensor:
    """The rows of broken images with the smallest margins, at most `PER_CLASS` of each class and
    `MOST` in all, the worst first; all three are (M,).

    Whatever is among the worst of all images is among the worst of its chunk, so what is chosen
    from the choices of chunks, in any order, is what would be chosen from all images at once.
    """
    order = margin.masked_fill(~broken, torch.inf).argsort(stable=True)
    taken: list[int] = []
    of_class: Counter[int] = Counter()
    for row in order[: int(broken.sum())].tolist():
        label = int(y[row])
        if of_class[label] < PER_CLASS and len(taken) < MOST:
            of_class[label] += 1
            taken.append(row)
    return torch.tensor(taken, dtype=torch.int64)


class Gallery:
    """The worst examples so far, each image once. `y` (N,) are the labels of all images.

    They are in the file `path` before the chunk that they come from counts as done: so they survive
    an interruption, as everything else does. A file that cannot be written stops nothing: no number
    depends on it.
    """

    def __init__(self, y: Tensor, path: Path) -> None:
        self._y, self._path = y.cpu(), path
        self._index = torch.zeros(0, dtype=torch.int64)
        self._predicted = torch.zeros(0, dtype=torch.int64)
        self._margin = torch.zeros(0)
        self._x_adv = torch.zeros(0, 0, 0, 0)
        self._attack: list[str] = []
        if known := read_arrays(path):
            self._take_over(known)

    def __len__(self) -> int:
        return len(self._index)

    def add(self, chunk: ChunkResult) -> None:
        """Look at a chunk's kept images."""
        if chunk.kept is None:
            return
        rows = chunk.kept.rows
        worst = worst_rows(chunk.broken[rows], chunk.margin[rows], self._y[chunk.indices[rows]])
        rows, x_adv = rows[worst], chunk.kept.x_adv[worst]
        before = self._index, self._margin
        self._merge(chunk, rows, x_adv)
        unchanged = len(before[0]) == len(self) and torch.equal(before[1], self._margin)
        if not unchanged:
            with suppress(RunFolderError):
                write_arrays(self._path, self._arrays())

    def examples(self, clean: Any, clean_predicted: Tensor, number: Tensor) -> Examples:
        """What was kept, with the clean images: `clean(indices)` gives them, (K, C, H, W) in [0,
        1]; `number` (N,) are the images' numbers in the test set."""
        x = clean(self._index) if len(self) else self._x_adv
        pixels = x.mul(255).round().to(torch.uint8)
        delta = self._x_adv - pixels / 255
        return Examples(
            index=number[self._index].numpy(),
            y=self._y[self._index].numpy(),
            clean_predicted=clean_predicted[self._index].numpy(),
            predicted=self._predicted.numpy(),
            margin=self._margin.numpy(),
            clean=pixels.numpy(),
            delta=delta.numpy(),
            attack=np.array(self._attack, dtype=np.str_),
        )

    def remove(self) -> None:
        """Forget what is on disk."""
        self._path.unlink(missing_ok=True)

    def _merge(self, chunk: ChunkResult, rows: Tensor, x_adv: Tensor) -> None:
        index = torch.cat([self._index, chunk.indices[rows]])
        margin = torch.cat([self._margin, chunk.margin[rows]])
        chosen = worst_rows(_first_of_each(index, margin), margin, self._y[index])
        attack = [*self._attack, *[chunk.label] * len(rows)]
        self._index, self._margin = index[chosen], margin[chosen]
        self._predicted = torch.cat([self._predicted, chunk.predicted[rows]])[chosen]
        self._x_adv = (torch.cat([self._x_adv, x_adv]) if len(self._x_adv) else x_adv)[
            chosen
        ].clone()
        self._attack = [attack[place] for place in chosen.tolist()]

    def _arrays(self) -> dict[str, Any]:
        return {
            "index": self._index.numpy(),
            "predicted": self._predicted.numpy(),
            "margin": self._margin.numpy(),
            "x_adv": self._x_adv.numpy(),
            "attack": np.array(self._attack, dtype=np.str_),
        }

    def _take_over(self, known: dict[str, Any]) -> None:
        """What an earlier, interrupted run had kept; nothing, if that does not fit."""
        if known.keys() != self._arrays().keys() or known["x_adv"].ndim != 4:
            return
        index = known["index"]
        if index.dtype != np.int64 or ((index < 0) | (index >= len(self._y))).any():
            return
        if len({len(array) for array in known.values()}) > 1:
            return
        self._index = torch.from_numpy(index)
        self._predicted = torch.from_numpy(known["predicted"].astype(np.int64))
        self._margin = torch.from_numpy(known["margin"].astype(np.float32))
        self._x_adv = torch.from_numpy(known["x_adv"].astype(np.float32))
        self._attack = [str(label) for label in known["attack"]]


def _first_of_each(index: Tensor, margin: Tensor) -> Tensor:
    """(K,) bool: the entry with the smallest margin of each image, the first of equals."""
    first = torch.zeros(len(index), dtype=torch.bool)
    seen: set[int] = set()
    for place in margin.argsort(stable=True).tolist():
        if int(index[place]) not in seen:
            seen.add(int(index[place]))
            first[place] = True
    return first
