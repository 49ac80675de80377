"""Images in several files of arrays, read a batch at a time, and their labels."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from rpat_cli.data.array_files import BLOCK, Array, ArrayFile
from rpat_cli.data.base import GIB, Shape
from rpat_cli.data.splits import in_chunks, unit
from rpat_cli.errors import DataError
from rpat_cli.records.regular import open_regular

READ_WHOLE = 2 * GIB
"""Bytes of images that are read from beginning to end to identify them; of more, a sample is."""

SAMPLE = 2000
"""Images of the sample."""


@dataclass(frozen=True, eq=False)
class Part:
    """Images, uint8 (N, C, H, W), or (N, H, W, C) with `channels_last`; labels (N,) of any integer
    type, in memory."""

    path: Path
    images: Array
    labels: Tensor
    channels_last: bool

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: np.ndarray, file: IO[bytes] | None) -> np.ndarray:
        """The images at `rows` (K,), uint8 (K, C, H, W); `file` is the open one of `images`.

        Raises `DataError` for what cannot be read.
        """
        if isinstance(self.images, np.ndarray):
            return self._channels_first(self.images[rows])
        assert file is not None
        found = np.empty((len(rows), *self.images.shape[1:]), np.uint8)
        try:
            for k in np.argsort(rows):  # in the order of the file
                self.images.read(file, int(rows[k]), found[k : k + 1])
        except (OSError, EOFError) as error:
            raise DataError(f"cannot read the images of {self.path}: {error}.") from error
        return self._channels_first(found)

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in their order, uint8 (K, C, H, W) each."""
        if isinstance(self.images, np.ndarray):
            size = max(1, BLOCK // max(1, self.images[:1].nbytes))
            blocks = iter(np.split(self.images, range(size, len(self), size)))
        else:
            blocks = self.images.blocks()
        for block in blocks:
            yield np.ascontiguousarray(self._channels_first(block))

    def _channels_first(self, images: np.ndarray) -> np.ndarray:
        return images.transpose(0, 3, 1, 2) if self.channels_last else images


@dataclass(frozen=True, eq=False)
class PartsSplit:
    """The images of several parts, of `shape` (C, H, W), as one sequence. No image is in memory but
    those of a batch, and those of parts that were compressed."""

    parts: tuple[Part, ...]
    shape: Shape

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def _ends(self) -> Tensor:
        """Where each part ends in the sequence."""
        return torch.tensor([len(part) for part in self.parts]).cumsum(0)

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.batches`. Raises `DataError` for a file that cannot be read any more."""
        with ExitStack() as stack:
            files = {}
            for number, part in enumerate(self.parts):
                if isinstance(part.images, ArrayFile):
                    files[number] = stack.enter_context(_opened(part.images.path))
            for chunk in in_chunks(order.cpu(), batch_size):
                pixels, labels = self._read(chunk, files)
                yield unit(pixels.to(device)), labels.to(device)

    def _read(self, chunk: Tensor, files: Mapping[int, IO[bytes]]) -> tuple[Tensor, Tensor]:
        """Images (K, C, H, W) uint8 and labels (K,) int64."""
        pixels = np.empty((len(chunk), *self.shape), np.uint8)
        labels = torch.empty(len(chunk), dtype=torch.int64)
        number_of = torch.searchsorted(self._ends, chunk, right=True)
        for number in sorted(set(number_of.tolist())):
            part, here = self.parts[number], number_of == number
            rows = chunk[here] - (self._ends[number] - len(part))
            pixels[here.numpy()] = part.pixels(rows.numpy(), files.get(number))
            labels[here] = part.labels[rows].long()
        return torch.from_numpy(pixels), labels

    def fingerprint(self) -> str:
        """sha256 (hex) that changes with the images, the labels or their order, not with how they
        are cut into parts. Of more than `READ_WHOLE` bytes, `SAMPLE` images are read, evenly
        spread."""
        whole = (len(self), *self.shape)
        digest = hashlib.sha256(repr(whole).encode())
        if np.prod(whole, dtype=np.int64) <= READ_WHOLE:
            for part in self.parts:
                for block in part.blocks():
                    digest.update(block.data)
        else:
            sample = torch.arange(SAMPLE) * len(self) // SAMPLE
            for x, _ in self.batches(sample, 100, "cpu"):
                digest.update(x.numpy().data)
        for part in self.parts:
            for labels in torch.split(part.labels, BLOCK // 8):
                digest.update(labels.long().numpy().data)
        return digest.hexdigest()


def _opened(path: Path) -> IO[bytes]:
    try:
        return open_regular(path, buffering=0)
    except OSError as error:
        raise DataError(f"cannot read the images of {path}: {error.strerror}.") from error
