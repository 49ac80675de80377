"""Two kinds of split, images in one uint8 tensor and image files that are decoded when they are
needed; and stratified choices of images."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils import data as torch_data

from rpat_cli.data.base import GIB, Shape
from rpat_cli.errors import DataError


def _chunks(order: Tensor, batch_size: int) -> list[Tensor]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _unit(pixels: Tensor) -> Tensor:
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


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Images (N, C, H, W) uint8 and labels (N,) int64 on one device, converted to float32 in [0, 1]
    batch by batch.

    Raises `DataError` if they differ in number.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
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
        for chunk in _chunks(order.to(self.images.device), batch_size):
            # Bytes travel to the device, a quarter of the floats that are made of them there.
            yield _unit(self.images[chunk].to(device)), self.labels[chunk].to(device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return _unit(self.images), self.labels

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def decode(path: Path, size: int) -> Tensor:
    """One image file as (3, size, size) uint8: RGB, the shorter side resized to `size`, then
    cropped at the center.

    Raises `DataError`, naming the file, if it is not a readable image.
    """
    try:
        with Image.open(path) as image:
            # Lets the JPEG decoder skip detail that the resize would throw away.
            image.draft("RGB", (size, size))
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read the image {path}: {error}. Replace or remove this file."
        ) from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class _BatchDecoder(torch_data.Dataset[Tensor | DataError]):
    """Indexed by a whole batch of indices, so that a worker returns one tensor per batch."""

    root: Path
    files: tuple[str, ...]
    size: int

    def __getitem__(self, indices: list[int]) -> Tensor | DataError:
        try:
            return torch.stack([decode(self.root / self.files[i], self.size) for i in indices])
        except DataError as error:
            return error  # not raised: torch would wrap the worker's traceback around the message


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Image files below `root` (relative, "/"-separated) and their labels (N,) int64.

    Decoded to `size` x `size` RGB by `workers` processes (0: in this one), without randomness. `to`
    reads a split of at most `memory_budget` bytes into a `TensorSplit`; a larger one stays on disk
    and is streamed.
    """

    root: Path
    files: tuple[str, ...]
    labels: Tensor
    size: int
    workers: int = 0
    memory_budget: int = 2 * GIB

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    @property
    def fits_memory(self) -> bool:
        return len(self) * 3 * self.size**2 <= self.memory_budget

    def to(self, device: torch.device | str) -> "TensorSplit | StreamSplit":
        return TensorSplit(self._pixels(), self.labels).to(device) if self.fits_memory else self

    def subset(self, indices: Tensor) -> "StreamSplit":
        chosen = tuple(self.files[i] for i in indices.tolist())
        return replace(self, files=chosen, labels=self.labels[indices.cpu()])

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        chunks = _chunks(order.cpu(), batch_size)
        pin = torch.device(device).type == "cuda"
        for pixels, chunk in zip(self._decoded(chunks, pin), chunks, strict=True):
            yield _unit(pixels.to(device, non_blocking=pin)), self.labels[chunk].to(device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return _unit(self._pixels()), self.labels

    def fingerprint(self) -> str:
        """sha256 (hex) of names, file sizes and labels: reading every image would take too long."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            digest.update(f"{file}\0{(self.root / file).stat().st_size}\0{label}\n".encode())
        return digest.hexdigest()

    def _pixels(self) -> Tensor:
        # Filled in place: concatenating a list of batches would need the memory twice.
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        done = 0
        for batch in self._decoded(_chunks(torch.arange(len(self)), 256), pin=False):
            pixels[done : done + len(batch)] = batch
            done += len(batch)
        return pixels

    def _decoded(self, chunks: list[Tensor], pin: bool) -> Iterator[Tensor]:
        loader = torch_data.DataLoader(
            _BatchDecoder(self.root, self.files, self.size),
            batch_size=None,
            sampler=[chunk.tolist() for chunk in chunks],
            num_workers=min(self.workers, len(chunks)),
            pin_memory=pin,
            # A generator of its own: the loader draws a base seed, which must not advance the
            # global random state.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
