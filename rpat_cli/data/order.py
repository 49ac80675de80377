"""Which images an epoch visits, and in which order."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Order(Protocol):
    """The images of an epoch; `generator` alone decides, so that any epoch can be repeated."""

    def __len__(self) -> int:
        """How many images an epoch has."""
        ...

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Their indices, (n,) int64 on the CPU."""
        ...


@dataclass(frozen=True)
class EachOnce:
    """Each of `count` images once, shuffled."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __call__(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)


@dataclass(frozen=True)
class SharedOrder:
    """The order of an epoch over the joined split of `rpat_cli.data.extra.join(main, extra)`, in
    which a fraction `share` (rounded) of every batch are extra images.

    `main` and `extra` are numbers of images. An epoch has as many images as the data set, so that
    schedules keep their meaning. Which extra images it visits is random; each is visited at most
    once before any comes again.
    """

    main: int
    extra: int
    batch_size: int
    share: float

    def __len__(self) -> int:
        return self.main

    def __call__(self, generator: torch.Generator) -> Tensor:
        per_batch = round(self.share * self.batch_size)
        batches = max(1, self.main // self.batch_size)
        own = _shuffled(self.main, batches * (self.batch_size - per_batch), generator)
        other = _shuffled(self.extra, batches * per_batch, generator) + self.main
        return torch.cat([own.view(batches, -1), other.view(batches, -1)], dim=1).flatten()


def _shuffled(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """`wanted` of the numbers below `count`, shuffled again each time that all have been used."""
    rounds = -(-wanted // count)  # division, rounded up
    shuffled = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    nothing = torch.empty(0, dtype=torch.int64)  # torch.cat takes no empty list
    return torch.cat([nothing, *shuffled])[:wanted]
