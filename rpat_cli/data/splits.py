"""Two kinds of split, images in one uint8 tensor and image files that are decoded when they are
needed; and stratified choices of images."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from rpat_cli.data.base import GIB, Shape
from rpat_cli.data.images import EpochCrops, Form, RandomCrop, decode, printable
from rpat_cli.errors import ConfigError, DataError, Problem


def in_chunks(order: Tensor, batch_size: int) -> list[Tensor]:
    """An order (K,) in batches; the last may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def unit(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return pixels.float().div_(255)


def stratified_choice(labels: Tensor, count: int, seed: int) -> Tensor:
    """Ascending indices of `count` images, stratified by class, never a whole class.

    `labels` is (N,) int64; `count` is at most N minus the number of classes. Each class's share is
    rounded by largest remainder. numpy's RandomState is used because its stream is frozen for good:
    a seed means the same images in every version.
    """
    values, sizes = np.unique(labels.cpu().numpy(), return_counts=True)
    spare = sizes - 1  # one image of each class always stays behind
    quota = count * spare / max(spare.sum(), 1)
    taken = np.floor(quota).astype(int)
    by_remainder = np.argsort(taken - quota, kind="stable")
    taken[by_remainder[: count - taken.sum()]] += 1
    random = np.random.RandomState(seed)
    chosen = []
    for value, number in zip(values, taken, strict=True):
        members = np.flatnonzero(labels.cpu().numpy() == value)
        chosen.append(random.permutation(members)[:number])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def counted(key: str, size: int | float, labels: Tensor) -> int:
    """How many of the images with these labels `size`, a count or a share below 1, holds out.

    Raises `ConfigError`, naming the recipe's `key`.
    """
    total, classes = len(labels), len(set(labels.tolist()))
    hint = "Choose a smaller one, for example 0.1."
    is_fraction = isinstance(size, float)
    if size < 0 or (is_fraction and not size < 1):
        allowed = "must be a count (an integer >= 0) or a fraction (0 <= fraction < 1)."
        raise ConfigError(Problem(key, f"{size} {allowed}", hint=hint))
    count = int(size)
    if is_fraction and size:
        count = max(1, round(size * total))
    if count > total - classes:
        message = (
            f"{size} asks for {count} of {total} training images; at most {total - classes}, "
            "since each class keeps one for training."
        )
        raise ConfigError(Problem(key, message, hint=hint))
    return count


def limited_choice(labels: Tensor, limit: int) -> Tensor:
    """Ascending indices of `limit` of the images with these labels (N,), stratified by class;
    always the same ones. All of them if there are no more than `limit`."""
    labels, left_out = labels.cpu(), len(labels) - limit
    if left_out <= 0:
        return torch.arange(len(labels))
    if left_out < limit:
        # `stratified_choice` never takes a whole class: choose the few that are left out instead.
        keep = torch.ones(len(labels), dtype=torch.bool)
        keep[stratified_choice(labels, left_out, seed=0)] = False
        return keep.nonzero().squeeze(1)
    return stratified_choice(labels, limit, seed=0)


def as_classes(labels: Tensor) -> Tensor:
    """Labels (N,) of any integer type as int64. Raises `DataError` for anything else."""
    if not isinstance(labels, Tensor):
        raise DataError(f"labels must be a tensor (N,) of integers, given {_kind_of(labels)}.")
    is_integer = not (labels.is_floating_point() or labels.is_complex())
    if labels.ndim != 1 or not is_integer or labels.dtype == torch.bool:
        raise DataError(f"labels must be integers (N,), given {_kind_of(labels)}.")
    return labels.long()


def _checked_images(images: Tensor) -> Tensor:
    """Raises `DataError` unless they are uint8 (N, C, H, W)."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.uint8:
        raise DataError(
            f"images must be a uint8 tensor (N, C, H, W), 0 to 255, given {_kind_of(images)}."
        )
    return images


def _kind_of(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"{type(value).__module__}.{type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Images (N, C, H, W) uint8 and labels (N,) on one device, converted to float32 in [0, 1]
    batch by batch.

    Labels of any integer type become int64. Raises `DataError` if images and labels differ in
    number, or are of another form.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _checked_images(self.images))
        object.__setattr__(self, "labels", as_classes(self.labels))
        if len(self.images) != len(self.labels):
            raise DataError(
                f"{len(self.images)} images but {len(self.labels)} labels: files of two data sets?"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> "TensorSplit":
        return TensorSplit(self.images.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> "TensorSplit":
        indices = indices.to(self.images.device)
        return TensorSplit(self.images[indices], self.labels[indices])

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in in_chunks(order.to(self.images.device), batch_size):
            # Bytes travel to the device, a quarter of the floats that are made of them there.
            yield unit(self.images[chunk].to(device)), self.labels[chunk].to(device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return unit(self.images), self.labels

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _BatchDecoder(torch_data.Dataset[Tensor | DataError]):
    """Indexed by a whole batch of indices, so that a worker returns one tensor per batch."""

    root: Path
    files: tuple[str, ...]
    form: Form
    crops: EpochCrops | None

    def __getitem__(self, indices: list[int]) -> Tensor | DataError:
        try:
            return torch.stack([self._decoded(index) for index in indices])
        except DataError as error:
            return error  # not raised: torch would wrap the worker's traceback around the message

    def _decoded(self, index: int) -> Tensor:
        box_of = None if self.crops is None else partial(self.crops.box, index)
        return decode(self.root / self.files[index], self.form, box_of)


def _content(path: Path, read: bool) -> str:
    """The sha256 of a file, or its size alone. Raises `DataError` for a file that cannot be
    read."""
    try:
        if not read:
            return str(path.stat().st_size)
        if not path.is_file():  # a pipe would be waited for without end
            raise FileNotFoundError(0, "it is not there, or is no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read the image {printable(path)}: {error.strerror}.") from error


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Image files below `root` (relative, "/"-separated) and their labels (N,) int64.

    Decoded to images of `form` by `workers` processes (0: in this one), without randomness. `to`
    reads a split of at most `memory_budget` bytes into a `TensorSplit`; a larger one stays on disk
    and is streamed, and so is one with a `crop`: what training crops out of its images, another
    part in every epoch. Batches are of whole images, but those of what `in_epoch` gives.
    """

    root: Path
    files: tuple[str, ...]
    labels: Tensor
    form: Form
    workers: int = 0
    memory_budget: int = 2 * GIB
    crop: RandomCrop | None = None
    crops: EpochCrops | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> Shape:
        return self.form.shape

    @property
    def fits_memory(self) -> bool:
        return len(self) * math.prod(self.shape) <= self.memory_budget

    def to(self, device: torch.device | str) -> "TensorSplit | StreamSplit":
        if self.crop is not None or not self.fits_memory:
            return self
        return TensorSplit(self._pixels(), self.labels).to(device)

    def in_epoch(self, seed: int, epoch: int) -> "StreamSplit":
        """The images as that epoch of a training sees them."""
        crops = None if self.crop is None else EpochCrops(self.crop, seed, epoch)
        return replace(self, crops=crops)

    def subset(self, indices: Tensor) -> "StreamSplit":
        chosen = tuple(self.files[i] for i in indices.tolist())
        return replace(self, files=chosen, labels=self.labels[indices.cpu()])

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        chunks = in_chunks(order.cpu(), batch_size)
        pin = torch.device(device).type == "cuda"
        for pixels, chunk in zip(self._decoded(chunks, pin), chunks, strict=True):
            yield unit(pixels.to(device, non_blocking=pin)), self.labels[chunk].to(device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return unit(self._pixels()), self.labels

    def fingerprint(self, at_most: int | None = None) -> str:
        """sha256 (hex) of the names, labels and contents of the files, and of the form that they
        are decoded to.

        Undecoded files are read far faster than images are attacked. With `at_most`, the contents
        of only so many files count, evenly spread, and the sizes of the others.
        """
        n = len(self)
        read = n if at_most is None else min(at_most, n)
        digest = hashlib.sha256(repr(self.form).encode())
        with ThreadPoolExecutor(8) as threads:  # waiting for the disk is most of it
            # In pieces: a pool that is given a million files holds a million results.
            for piece in in_chunks(torch.arange(n), 256):
                indices = piece.tolist()
                files = [self.files[i] for i in indices]
                wanted = [i * read // n != (i + 1) * read // n for i in indices]
                contents = threads.map(_content, [self.root / file for file in files], wanted)
                labels = self.labels[piece].tolist()
                for file, label, content in zip(files, labels, contents, strict=True):
                    digest.update(os.fsencode(file) + f"\0{content}\0{label}\n".encode())
        return digest.hexdigest()

    def _pixels(self) -> Tensor:
        # Filled in place: concatenating a list of batches would need the memory twice.
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        done = 0
        for batch in self._decoded(in_chunks(torch.arange(len(self)), 256), pin=False):
            pixels[done : done + len(batch)] = batch
            done += len(batch)
        return pixels

    def _decoded(self, chunks: list[Tensor], pin: bool) -> Iterator[Tensor]:
        decoder = _BatchDecoder(self.root, self.files, self.form, self.crops)
        return batched(decoder, chunks, self.workers, pin)


def batched(
    decoder: torch_data.Dataset[Tensor | DataError], chunks: list[Tensor], workers: int, pin: bool
) -> Iterator[Tensor]:
    """What the decoder makes of each of the chunks of indices, in their order, by `workers`
    processes (0: in this one). Raises the `DataError` that it returns."""
    loader = torch_data.DataLoader(
        decoder,
        batch_size=None,
        sampler=_Indices(chunks),
        # A single batch is decoded sooner than a process starts.
        num_workers=min(workers, len(chunks)) if len(chunks) > 1 else 0,
        pin_memory=pin,
        # A generator of its own: the loader draws a base seed, which must not advance the global
        # random state.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Indices:
    """The batches of an order as lists, made one by one: those of millions of images would take
    hundreds of MB."""

    chunks: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[list[int]]:
        return (chunk.tolist() for chunk in self.chunks)
