"""Several processes in one training: each computes its slice of every batch, and all take the same
step.

The model is not wrapped: an attack through torch's DistributedDataParallel would wait for the
others in each of its steps, and several forward passes before one backward pass fail in it. Instead
the gradients are added up once, after the backward passes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rpat_cli.engine.compute import seed_everything
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.parallel.group import noticing_losses, shares_gpus

T = TypeVar("T")

STEP_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the gradients of the others; one that has died is noticed at once."""

BUCKET = 25 * 2**20
"""Bytes that are sent in one piece: many small tensors together, large models not all at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training; `rank` counts from 0, which alone writes.

    All of them call the same methods in the same order. With `size` 1 every method returns at once
    what it was given, so that one process computes what it did before there were ranks.
    """

    rank: int = 0
    size: int = 1
    gradients: Any = None
    """The process group for tensors on the device; None is the one that all messages go through."""

    @classmethod
    def joined(cls) -> "Ranks":
        """Those of the group that this process has joined
        (`rpat_cli.evaluation.parallel.group`)."""
        return cls(dist.get_rank(), dist.get_world_size())

    def on(self, device: torch.device) -> "Ranks":
        """The same, ready to add up gradients there: through NCCL on GPUs, else through gloo."""
        if self.size == 1:
            return self
        fast = device.type == "cuda" and not shares_gpus()
        with noticing_losses():
            group = dist.new_group(backend="nccl" if fast else "gloo", timeout=STEP_TIMEOUT)
        return replace(self, gradients=group)

    def synchronize_batchnorm(self, model: nn.Module) -> None:
        """From here on, BatchNorm in train mode takes the statistics of the whole batch, in place.

        Its parameters and buffers stay the same objects, and keep their names.
        """
        if self.size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(model, self.gradients)  # type: ignore[no-untyped-call]

    def slice_of(self, count: int) -> range:
        """Which of `count` images are this rank's. Every so many-th: where the images of a batch
        have an order, as data set and extra images do, every rank gets of all kinds."""
        return range(self.rank, count, self.size)

    def seed(self, *place: int) -> None:
        """Give this rank random numbers of its own, which follow from the place in the training and
        the rank alone: so a checkpoint of so many ranks goes on with any other number."""
        if self.size > 1:
            text = " ".join(map(str, (*place, self.rank)))
            digest = hashlib.sha256(text.encode()).digest()
            seed_everything(int.from_bytes(digest[:4], "big"))

    def mean(self, tensors: Sequence[Tensor], weight: float) -> Sequence[Tensor]:
        """The means over the ranks, where this one has `weight`; all weights add up to 1."""
        if self.size == 1:
            return tensors
        weighted = [tensor * weight for tensor in tensors]
        self._add_up(weighted)
        return weighted

    @torch.no_grad()
    def combine(self, model: nn.Module, weight: float, *counts: int) -> list[int]:
        """Add up the gradients of all ranks, and give the buffers, but for counters, one value in
        all of them; returns the `counts` (of anything: it saves a message) summed over the ranks.

        Gradients are to be weighted already: those of `weight` times a mean. A running statistic of
        BatchNorm becomes the weighted mean; any other buffer (a constant, in general) that of rank
        0. A parameter without a gradient on all ranks stays without.
        """
        if self.size == 1:
            return list(counts)
        parameters = [p for p in model.parameters() if p.requires_grad]
        present = [int(p.grad is not None) for p in parameters]
        totals = torch.tensor([*counts, *present])
        with noticing_losses():
            dist.all_reduce(totals)
        summed = totals.tolist()
        for parameter, having in zip(parameters, summed[len(counts) :], strict=True):
            if having and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [each for each in model.buffers() if each.is_floating_point()]
        averaged = {id(each) for each in _statistics(model)}
        shared = [
            each * weight if id(each) in averaged else each * float(self.rank == 0)
            for each in buffers
        ]
        self._add_up([*gradients, *shared])
        for buffer, value in zip(buffers, shared, strict=True):
            buffer.copy_(value)
        return summed[: len(counts)]

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Every value, by name, summed over the ranks. A rank may lack some: a term that is over
        some images of a batch only is not made where a slice has none of them."""
        total: dict[str, float] = {}
        for of_one in self.from_all(dict(values)):
            for name, value in of_one.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def highest(self, number: int) -> int:
        """The highest of the ranks' numbers. Returns when all ranks have called it."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        with noticing_losses():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def from_first(self, value: T) -> T:
        """What rank 0 has given, of builtins and tensors on the CPU."""
        if self.size == 1:
            return value
        values = [value]
        with noticing_losses():
            dist.broadcast_object_list(values)
        return values[0]

    def from_all(self, value: T) -> list[T]:
        """What each rank has given, in their order."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        with noticing_losses():
            dist.all_gather_object(values, value)
        return values

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors, in place, the values that they have on rank 0."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = _flattened(bucket)
            with noticing_losses():
                dist.broadcast(flat, 0, group=self.gradients)
            _unflatten(flat, bucket)

    def _add_up(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = _flattened(bucket)
            with noticing_losses():
                dist.all_reduce(flat, group=self.gradients)
            _unflatten(flat, bucket)


ALONE = Ranks()
"""The one process of a training that is not shared."""


def parts_of(images: int, accumulate: int, ranks: Ranks = ALONE) -> list[int]:
    """The sizes of the `accumulate` parts that a batch of so many images is computed in, before the
    ranks share each of them.

    Raises `ConfigError` if a part has not an image for each rank.
    """
    parts = [len(part) for part in torch.empty(images).chunk(accumulate)]
    if parts[-1] < ranks.size:
        of = f"parts of {parts[-1]}" if len(parts) > 1 else f"a batch of {images}"
        raise ConfigError(
            f"{of} images cannot be shared by {ranks.size} processes. Use fewer processes, a "
            "larger --batch-size, or less --accumulate."
        )
    return parts


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    """The running means and variances of BatchNorm, and of what is built like it."""
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] in ("running_mean", "running_var"):
            yield buffer


def _flattened(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the values back to where `_flattened` has them from."""
    done = 0
    for tensor in tensors:
        tensor.copy_(flat[done : done + tensor.numel()].view(tensor.shape))
        done += tensor.numel()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type and of about `BUCKET` bytes, in an order that is the same
    on all ranks."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
        if sum(each.nbytes for each in by_type[tensor.dtype]) >= BUCKET:
            yield by_type.pop(tensor.dtype)
    yield from by_type.values()
