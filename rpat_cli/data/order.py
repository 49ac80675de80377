"""Which images an epoch visits, and in which order."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

AT_ONCE = 2**22
"""Up to so many images are shuffled as a whole; of more, the order is computed where it is needed:
that of 50 million would take 400 MB."""

ROUNDS = 8
"""Of the Feistel network; four are enough against somebody who knows the round function's outputs
only."""


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
    """The order of an epoch over `rpat_cli.data.joined.Joined(main, extra)`, in which a fraction
    `share` (rounded) of every batch are extra images.

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
    if count > AT_ONCE:
        parts = []
        for done in range(rounds):
            part = torch.arange(min(count, wanted - done * count))
            parts.append(permuted(part, count, generator))
    else:
        parts = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    nothing = torch.empty(0, dtype=torch.int64)  # torch.cat takes no empty list
    return torch.cat([nothing, *parts])[:wanted]


def permuted(positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """What a random permutation of the numbers below `count` (at most 2^32) has at the `positions`
    (K,) int64, in memory for K numbers only.

    A Feistel network (Luby & Rackoff, SIAM J. Comput. 1988) permutes the numbers of 2 · h bits,
    whatever its round function; what it sends beyond `count` is sent on until it comes back (Black
    & Rogaway, CT-RSA 2002).
    """
    half = -(-(count - 1).bit_length() // 2)
    low = 2**half - 1
    keys = torch.randint(2**32, (ROUNDS,), generator=generator).tolist()
    found, outside = positions.clone(), torch.ones_like(positions, dtype=torch.bool)
    while outside.any():
        left, right = found[outside] >> half, found[outside] & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        found[outside] = left << half | right
        outside = found >= count
    return found


def _mixed(number: Tensor) -> Tensor:
    """Numbers below 2^32 that look unlike those given: the finalizer of MurmurHash3 (public
    domain)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        number = ((number ^ number >> shift) * factor) & 0xFFFFFFFF
    return number ^ number >> 16
