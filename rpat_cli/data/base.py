"""What a data set is: what is known before any file is read (`DatasetSpec`), and what reading gives
(`RawData`, then `Dataset`)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rpat_cli.data.images import RandomCrop

Shape = tuple[int, int, int]
"""Channels, height, width."""

GIB = 2**30

COLOR_EPS: Mapping[str, float] = MappingProxyType(
    {"Linf": 8 / 255, "L2": 128 / 255, "L1": 2000 / 255}
)
"""The eps by norm at which robustness on color images is usually reported, for pixels in [0, 1]."""


class Batches(Protocol):
    """Labeled images that are read in batches; `shape` is (C, H, W)."""

    @property
    def shape(self) -> Shape: ...
    def __len__(self) -> int: ...

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches x (B, C, H, W) float32 in [0, 1] and y (B,) int64 on `device`, of the images at
        `order` (K,) int64; the last batch may be smaller.

        Draws no random number, so that a training can resume at any batch of an order. Raises
        `DataError` for an image that cannot be read.
        """
        ...


def in_epoch(images: Batches, seed: int, epoch: int) -> Batches:
    """The images as that epoch of a training sees them: with random crops of its own, where they
    have any (a method `in_epoch` of theirs)."""
    own = getattr(images, "in_epoch", None)
    cropped: Batches = images if own is None else own(seed, epoch)
    return cropped


class Split(Batches, Protocol):
    """Labeled images, in memory or on disk. Pixels come out as float32 in [0, 1], NCHW.

    `labels` is (N,) int64 on the CPU or on the device of the images.
    """

    @property
    def labels(self) -> Tensor: ...

    def to(self, device: torch.device | str) -> "Split":
        """The same images on `device`; images on disk that fit in memory are read here, once."""
        ...

    def subset(self, indices: Tensor) -> Self:
        """The images at `indices` (K,) int64, in that order."""
        ...

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images at once: x (N, C, H, W) float32 in [0, 1] and y (N,) int64."""
        ...

    def fingerprint(self) -> str:
        """sha256 (hex) that changes with the images or the labels."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """The options of a loader.

    `root`: the data root, which holds the data sets. `memory_budget`: bytes for one split.
    `workers`: processes that decode image files. `test_only`: only the test images are needed, and
    files of others may be missing.

    The others are for folders of image files. `image_size`: pixels a side, or height and width.
    `channels`: 3, or 1 for gray. `center_crop`, `interpolation`: see `rpat_cli.data.images.Form`.
    `train_crop`: what an epoch of training crops out of its images.
    `test_size`: share of a tree without splits that is held out as test images. `val_folder`: the
    validation images are those of `val/`.
    """

    root: Path
    download: bool = False
    image_size: int | tuple[int, int] | None = None
    memory_budget: int = 2 * GIB
    workers: int = 0
    test_only: bool = False
    channels: int | None = None
    center_crop: float = 1.0
    interpolation: str = "bilinear"
    test_size: int | float | None = None
    val_folder: bool = False
    train_crop: "RandomCrop | None" = None


@dataclass(frozen=True)
class RawData:
    """A data set with the splits of its authors, before validation images are held out.

    `train` may be None where only the test images were asked for. `val` are validation images that
    come as such, where the options ask for them. `remarks` are what a user should know of how the
    files were read.
    """

    train: Split | None
    test: Split
    class_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    val: Split | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before any file is read.

    `shape` is (C, H, W), or None if the `image_size` option decides; `classes` is None if the files
    decide. `mean` and `std` are per channel, of the training images, pixels in [0, 1]. `eps` is the
    default eps by norm, for pixels in [0, 1]. `defaults` are recipe keys that the data set changes.
    `load` raises `DataError` for files that are missing or damaged. `train_images` is the number of
    training images, for estimates before the files are there.
    """

    name: str
    shape: Shape | None
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eps: Mapping[str, float]
    load: Callable[[LoadOptions], RawData]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    train_images: int | None = None

    def constants(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`mean` and `std` for images of so many channels: gray ones take the averages of the
        colors."""
        if self.shape is None and channels == 1:
            return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        return self.mean, self.std


@dataclass(frozen=True)
class Dataset:
    """A loaded data set. `val` was held out from the training images, or came as validation images;
    both are empty where only the test images were asked for.

    `fingerprint` (sha256, hex) identifies the test set, `train_fingerprint` the training images
    before any were held out, with validation images that came as such ("" without them).
    `remarks`: see `RawData`. `further`: where the test images are from, if they are not the data
    set's own.
    """

    spec: DatasetSpec
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    train_fingerprint: str = ""
    remarks: tuple[str, ...] = ()
    further: str = ""

    @property
    def name(self) -> str:
        """Of the data set, and of the test images where they are not its own."""
        return f"{self.spec.name}: {self.further}" if self.further else self.spec.name

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> Shape:
        return self.test.shape

    @property
    def mean(self) -> tuple[float, ...]:
        return self.spec.constants(self.shape[0])[0]

    @property
    def std(self) -> tuple[float, ...]:
        return self.spec.constants(self.shape[0])[1]
