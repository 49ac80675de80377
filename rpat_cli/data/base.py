"""What a data set is: what is known before any file is read, and what reading it gives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

Shape = tuple[int, int, int]
"""Channels, height, width."""

GIB = 2**30

# The radii at which robustness is usually reported, in pixels of [0, 1].
COLOUR_EPS: Mapping[str, float] = MappingProxyType(
    {"Linf": 8 / 255, "L2": 128 / 255, "L1": 2000 / 255}
)


class Split(Protocol):
    """Labelled images, in memory or on disk. Pixels come out as float32 in [0, 1], NCHW.

    `labels` is (N,) int64 on the CPU or on the device of the images; `shape` is (C, H, W).
    """

    @property
    def labels(self) -> Tensor: ...
    @property
    def shape(self) -> Shape: ...
    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> "Split":
        """The same images where they are needed; images on disk that fit in memory are read here,
        once."""
        ...

    def subset(self, indices: Tensor) -> Self:
        """The images at `indices` (K,) int64, in that order."""
        ...

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y) on `device`, in the given order (K,) int64; the last one may be smaller.

        Draws no random number: whoever knows the order can start again at any batch. Raises
        `DataError` for an image that cannot be read.
        """
        ...

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All of it at once: x (N, C, H, W) float32 in [0, 1] and y (N,) int64."""
        ...

    def fingerprint(self) -> str:
        """sha256 (hex) that changes with the images or the labels."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """What a loader is told. `image_size` in pixels; `memory_budget` in bytes for one split;
    `workers` processes."""

    root: Path
    download: bool = False
    image_size: int | None = None
    memory_budget: int = 2 * GIB
    workers: int = 0


@dataclass(frozen=True)
class RawData:
    """A data set as its authors cut it, before validation images are held out."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before any file is read.

    `shape` is (C, H, W), or None if the `image_size` option decides; `classes` is None if the files
    decide. `mean` and `std` are per channel, of the training images, pixels in [0, 1]. `eps` is the
    default radius per norm. `defaults` is a layer of the recipe. `load` raises `DataError` for
    files that are missing or damaged.
    """

    name: str
    shape: Shape | None
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eps: Mapping[str, float]
    load: Callable[[LoadOptions], RawData]
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A loaded data set. `val` was held out from the training images; `fingerprint` (sha256 hex)
    names the test set."""

    spec: DatasetSpec
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> Shape:
        return self.test.shape

    @property
    def mean(self) -> tuple[float, ...]:
        return self.spec.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.spec.std
