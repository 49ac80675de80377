"""Images that are read when they are needed, where a tensor of all of them could be given as well:
what evaluations and diagnostics take, so that their memory does not grow with the number of
images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import torch
from torch import Tensor

from rpat_cli.data.base import Batches, Split
from rpat_cli.data.heap import give_back


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a split, in place of a tensor x (N, C, H, W): indexing reads those asked for,
    as float32 in [0, 1]."""

    source: Split

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)"""
        return torch.Size((len(self), *self.source.shape))

    @property
    def device(self) -> torch.device:
        return self.source.labels.device

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """(K, C, H, W), of K indices (K,) int64 or a slice."""
        indices = torch.arange(len(self))[which] if isinstance(which, slice) else which
        return next(read_batches(self.source, [indices], self.device))[0]

    def batches(self, size: int, device: torch.device | str) -> Iterator[Tensor]:
        """All of them, in their order, in batches of at most `size` on the device."""
        for x, _ in self.source.batches(torch.arange(len(self)), size, device):
            yield x
            give_back()


AnyImages: TypeAlias = Tensor | Images
"""x (N, C, H, W), floats in [0, 1]: a tensor, or images that are read when they are needed."""


def read_batches(
    split: Batches, pieces: Sequence[Tensor], device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch of the images at each of the `pieces`, indices (K,) int64, one after another: x
    (K, C, H, W) and y (K,), on the device."""
    # Pieces of one size are batches of one order, which a split on disk reads ahead.
    for size, group in groupby(pieces, len):
        if size:
            yield from split.batches(torch.cat(list(group)), size, device)
        else:
            x, y = torch.empty(0, *split.shape), torch.empty(0, dtype=torch.int64)
            yield from ((x.to(device), y.to(device)) for _ in group)


def pieces_of(x: AnyImages, pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    """The images at each of the `pieces`, indices (K,) int64, one after another, on x's device."""
    if isinstance(x, Images):
        return (read for read, _ in read_batches(x.source, pieces, x.device))
    return (x[indices.to(x.device)] for indices in pieces)


def chosen_of(x: AnyImages, indices: Tensor) -> AnyImages:
    """The images at `indices` (K,) int64; those that are still to be read are not read here."""
    return Images(x.source.subset(indices)) if isinstance(x, Images) else x[indices]
