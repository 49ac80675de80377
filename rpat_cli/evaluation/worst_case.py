"""The worst adversarial example of every image, collected on disk while chunks come in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rpat_cli.evaluation.parallel.chunks import ChunkResult


def all_rows(broken: Tensor, margin: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
    """Every row of a chunk: a choice as `ChooseRows`."""
    return torch.arange(len(y))


class WorstCase:
    """For every image the example that is worst so far: one that the model gets wrong before one
    that it does not, then the one with the smallest margin, then that of the earlier attack.

    `shape` is that of all images (N, C, H, W), `labels` are the attacks in their order. The images
    are in the file `path`, in memory are only a few numbers for each: `clean` (N,) bool says for
    which there is none. A chunk's images are on disk before it counts as known; so after an
    interruption the numbers follow from the `known` chunks.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        labels: Sequence[str],
        known: Sequence[ChunkResult] = (),
    ) -> None:
        self._path, self._shape, self._labels = path, shape, list(labels)
        self._broken = torch.zeros(shape[0], dtype=torch.bool)
        self._margin = torch.full((shape[0],), torch.inf)
        self._rank = torch.full((shape[0],), -1, dtype=torch.int64)
        for chunk in known:
            self._better(chunk)

    @staticmethod
    def is_there(path: Path, shape: tuple[int, ...]) -> bool:
        """Whether a file holds the images of an earlier, interrupted run."""
        return path.is_file() and path.stat().st_size == 4 * int(np.prod(shape))

    def add(self, chunk: ChunkResult) -> None:
        """Take over the images of a chunk that are worse. Raises `OSError` if the disk is full."""
        if chunk.kept is None or not len(chunk.indices):
            return
        better = self._better(chunk)
        images = self._mapped("r+" if self.is_there(self._path, self._shape) else "w+")
        rows = chunk.kept.rows[better[chunk.kept.rows]]
        places = chunk.indices[rows].numpy()
        images[places] = chunk.kept.x_adv[better[chunk.kept.rows]].numpy()
        images.flush()

    def replaced(self, start: int, x: Tensor, clean_margin: Tensor) -> tuple[Tensor, list[str]]:
        """Of the clean images `x` (B, C, H, W), which begin at row `start`, the worst examples, and
        the attack that each is from. The clean image itself stays where no example has a smaller
        margin than it, `clean_margin` (B,)."""
        rows = slice(start, start + len(x))
        taken = (self._rank[rows] >= 0) & (
            self._broken[rows] | (self._margin[rows] < clean_margin.cpu())
        )
        x_adv = x.clone()
        if taken.any():
            images = torch.from_numpy(np.array(self._mapped("r")[rows]))
            x_adv[taken] = images[taken].to(x)
        ranks = self._rank[rows].tolist()
        names = [
            self._labels[rank] if is_taken else "clean"
            for rank, is_taken in zip(ranks, taken.tolist(), strict=True)
        ]
        return x_adv, names

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _better(self, chunk: ChunkResult) -> Tensor:
        """(M,) bool: which of a chunk's examples are worse than what was known; they count now."""
        index, rank = chunk.indices, self._labels.index(chunk.label)
        broken, margin, before = self._broken[index], self._margin[index], self._rank[index]
        smaller = (chunk.margin < margin) | ((chunk.margin == margin) & (rank < before))
        better = (chunk.broken & ~broken) | ((chunk.broken == broken) & smaller)
        where = index[better]
        self._broken[where] = chunk.broken[better]
        self._margin[where] = chunk.margin[better]
        self._rank[where] = rank
        return better

    def _mapped(self, mode: str) -> "np.memmap[tuple[int, ...], np.dtype[np.float32]]":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return np.memmap(self._path, dtype="<f4", mode=mode, shape=self._shape)  # type: ignore[call-overload,no-any-return]
