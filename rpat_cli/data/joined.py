"""The training images and further ones as one sequence, and reading ahead of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rpat_cli.data.base import Batches, Shape, in_epoch
from rpat_cli.data.reading import read_batches
from rpat_cli.data.splits import in_chunks

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Joined:
    """The images of `main`, then those of `extra`, each read from where they are."""

    main: Batches
    extra: Batches

    def __len__(self) -> int:
        return len(self.main) + len(self.extra)

    @property
    def shape(self) -> Shape:
        return self.main.shape

    def in_epoch(self, seed: int, epoch: int) -> "Joined":
        return Joined(in_epoch(self.main, seed, epoch), self.extra)

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.batches`."""
        chunks = in_chunks(order.cpu(), batch_size)
        own = [chunk < len(self.main) for chunk in chunks]
        of_main = [chunk[mask] for chunk, mask in zip(chunks, own, strict=True)]
        of_extra = [chunk[~mask] - len(self.main) for chunk, mask in zip(chunks, own, strict=True)]
        main = read_batches(self.main, of_main, device)
        extra = one_ahead(read_batches(self.extra, of_extra, device))
        for mask, (x, y), (x_extra, y_extra) in zip(own, main, extra, strict=True):
            x, y = torch.cat([x, x_extra]), torch.cat([y, y_extra])
            if not mask[: mask.sum()].all():  # the order has them mixed
                back = torch.cat([mask.nonzero(), (~mask).nonzero()]).flatten().argsort().to(device)
                x, y = x[back], y[back]
            yield x, y


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, each made in a thread of its own while the one before is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
