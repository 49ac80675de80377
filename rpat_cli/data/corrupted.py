"""CIFAR-10-C and CIFAR-100-C: the test images after noise, blur, weather and compression, in five
severities.

Hendrycks & Dietterich, ICLR 2019 (arXiv 1903.12261). A folder holds `<corruption>.npy`, uint8 (5 N,
H, W, C), all N images at severity 1, then all at severity 2 and so on, and `labels.npy`, the N
labels five times over.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpat_cli.data.base import Shape
from rpat_cli.data.splits import TensorSplit, limited_choice
from rpat_cli.errors import DataError

SEVERITIES = 5

STANDARD = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""What the mean error and mCE are over."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Held out by the authors, for those who tune on the others."""

LABELS = "labels.npy"


@dataclass(frozen=True)
class CorruptedImages:
    """The corruptions that are there, STANDARD ones first, and of each severity the images at
    `chosen` (K,) int64.

    `labels` (K,) int64 are those of the chosen images; `n` is how many images a severity has in the
    files.
    """

    root: Path
    names: tuple[str, ...]
    n: int
    chosen: Tensor
    labels: Tensor

    def read(self, name: str, severity: int) -> TensorSplit:
        """The chosen images of one corruption; `severity` counts from 1. No others are read from
        the disk."""
        pixels = _load(self.root / f"{name}.npy")[(severity - 1) * self.n + self.chosen.numpy()]
        return TensorSplit(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), self.labels)

    def fingerprint(self) -> str:
        """sha256 (hex) of the labels of the chosen images, which tells another choice or test set;
        no pixel is read."""
        return hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()


def open_corrupted(
    root: Path, *, shape: Shape, test_labels: Tensor, classes: int, limit: int | None = None
) -> CorruptedImages:
    """Look at every file, without reading its images.

    `shape` is that of the model's images, `test_labels` (M,) are those of the clean test set; with
    a `limit` only so many images are chosen, each class by its share, the same ones every time and
    in every severity. Raises `DataError` for a corruption of STANDARD that is missing, files of
    another form, and labels that are not of this test set.
    """
    there = [name for name in (*STANDARD, *EXTRA) if (root / f"{name}.npy").is_file()]
    _check_complete(root, there)
    labels = _labels(root / LABELS, test_labels, classes)
    for name in there:
        _check_images(root / f"{name}.npy", len(labels), shape)
    chosen = torch.arange(len(labels)) if limit is None else limited_choice(labels, limit)
    return CorruptedImages(root, tuple(there), len(labels), chosen, labels[chosen])


def _check_complete(root: Path, there: Sequence[str]) -> None:
    missing = [name for name in STANDARD if name not in there]
    missing += [] if (root / LABELS).is_file() else [LABELS.removesuffix(".npy")]
    if missing:
        state = f"there are only: {', '.join(there)}" if there else "no corruption is there"
        raise DataError(
            f"{root} lacks {', '.join(f'{name}.npy' for name in missing)}; {state}. Give the "
            "folder that CIFAR-10-C or "
            "CIFAR-100-C was unpacked to, with all 15 standard corruptions: a mean over fewer "
            "compares with nothing."
        )


def _load(file: Path) -> Any:
    """A memory-mapped array. Raises `DataError`."""
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {file}: {error}. Unpack it anew.") from error


def _labels(file: Path, test_labels: Tensor, classes: int) -> Tensor:
    """The labels of one severity, (N,) int64."""
    array = _load(file)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array) or len(array) % SEVERITIES:
        raise DataError(
            f"{file} holds {array.dtype} of shape {array.shape}; expected whole numbers of shape "
            "(5 N,): the labels of "
            "N images, once for each severity."
        )
    by_severity = torch.from_numpy(array.astype(np.int64)).view(SEVERITIES, -1)
    labels = by_severity[0]
    if not torch.equal(by_severity, labels.expand_as(by_severity)):
        raise DataError(
            f"{file}: the five severities have other labels; they should hold the same images."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{file} has labels from {low} to {high}, the model knows {classes} classes. "
            "CIFAR-10-C is for models of "
            "cifar10, CIFAR-100-C for those of cifar100."
        )
    counts, expected = (torch.bincount(y.cpu(), minlength=classes) for y in (labels, test_labels))
    if len(labels) == len(test_labels) and not torch.equal(counts, expected):
        k = int((counts != expected).nonzero()[0])
        raise DataError(
            f"{file} is not of the model's test set: it has {int(counts[k])} images of class "
            f"{k}, the test set "
            f"{int(expected[k])}. CIFAR-10-C is for models of cifar10, CIFAR-100-C for those of "
            "cifar100."
        )
    return labels


def _check_images(file: Path, n: int, shape: Shape) -> None:
    array = _load(file)
    channels, height, width = shape
    if array.dtype != np.uint8 or array.ndim != 4 or len(array) != SEVERITIES * n:
        raise DataError(
            f"{file} holds {array.dtype} of shape {array.shape}; expected uint8 of shape "
            f"({SEVERITIES * n}, {height}, {width}, {channels}): five severities of the {n} "
            f"images that {LABELS} names."
        )
    if array.shape[1:] != (height, width, channels):
        raise DataError(
            f"the images in {file} are of height, width, channels {array.shape[1:]}, the model "
            "takes "
            f"{(height, width, channels)}. Give the corruptions of the data set that it was "
            "trained on."
        )
