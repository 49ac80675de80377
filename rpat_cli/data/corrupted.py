"""CIFAR-10-C and CIFAR-100-C: the test images under noise, blur, weather and digital corruptions,
each at five severities.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, arXiv 1903.12261. A folder holds `<corruption>.npy`, uint8 (5 N,
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
from rpat_cli.data.choice import Limit, choose
from rpat_cli.data.splits import TensorSplit
from rpat_cli.errors import DataError

SEVERITIES = 5

STANDARD = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The corruptions that the mean error and mCE are over."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Held out by the authors, to validate on when the others are the test."""

LABELS = "labels.npy"

PIXELS_READ = 100
"""Images of each corruption and severity whose pixels are compared: some 23 MB in all."""


@dataclass(frozen=True)
class CorruptedImages:
    """The corruptions found in a folder, STANDARD ones first, and which of their images to use.

    `n` is how many images each severity has in the files, `chosen` (K,) int64 the indices of those
    to use, `labels` (K,) int64 their classes.
    """

    root: Path
    names: tuple[str, ...]
    n: int
    chosen: Tensor
    labels: Tensor

    def read(self, name: str, severity: int) -> TensorSplit:
        """The chosen images of one corruption at a severity from 1 to 5. No others are read from
        disk."""
        pixels = _load(self.root / f"{name}.npy")[(severity - 1) * self.n + self.chosen.numpy()]
        return TensorSplit(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), self.labels)

    def fingerprint(self) -> str:
        """sha256 (hex) of the chosen images' labels: changes with the choice and the test set. No
        pixel is read."""
        return hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def pixels(self) -> str:
        """sha256 (hex) of up to `PIXELS_READ` of the chosen images of every standard corruption and
        severity: equal labels do not make equal images."""
        places = torch.linspace(0, len(self.chosen) - 1, min(PIXELS_READ, len(self.chosen))).long()
        some = self.chosen[places].numpy()
        digest = hashlib.sha256()
        for name in STANDARD:
            images = _load(self.root / f"{name}.npy")
            for severity in range(SEVERITIES):
                digest.update(images[severity * self.n + some].tobytes())
        return digest.hexdigest()


def open_corrupted(
    root: Path, *, shape: Shape, test_labels: Tensor, classes: int, limit: Limit | None = None
) -> CorruptedImages:
    """Check every file of a folder, without reading its images.

    `shape` (C, H, W) is that of the model's images, `test_labels` (M,) those of the clean test set.
    With a `limit` only that many images are chosen, stratified by class, the same ones every time
    and at every severity. Raises `DataError` for a missing corruption of STANDARD, files of another
    form, and labels that do not belong to this test set.
    """
    there = [name for name in (*STANDARD, *EXTRA) if (root / f"{name}.npy").is_file()]
    _check_complete(root, there)
    labels = _labels(root / LABELS, test_labels, classes)
    for name in there:
        _check_images(root / f"{name}.npy", len(labels), shape)
    chosen = choose(limit, labels)
    return CorruptedImages(root, tuple(there), len(labels), chosen, labels[chosen])


def _check_complete(root: Path, there: Sequence[str]) -> None:
    missing = [name for name in STANDARD if name not in there]
    missing += [] if (root / LABELS).is_file() else [LABELS.removesuffix(".npy")]
    if missing:
        state = f"it has only: {', '.join(there)}" if there else "it has no corruption at all"
        files = ", ".join(f"{name}.npy" for name in missing)
        raise DataError(
            f"{root} lacks {files}; {state}. Give the folder that CIFAR-10-C or CIFAR-100-C was "
            "unpacked to, with all 15 standard corruptions: a mean over fewer is not comparable "
            "with published ones."
        )


def _load(file: Path) -> Any:
    """A memory-mapped array. Raises `DataError`."""
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {file}: {error}. Unpack the archive again.") from error


def _labels(file: Path, test_labels: Tensor, classes: int) -> Tensor:
    """The labels of one severity, (N,) int64."""
    array = _load(file)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array) or len(array) % SEVERITIES:
        raise DataError(
            f"{file} holds {array.dtype} of shape {array.shape}; expected integers of shape "
            "(5 N,): the labels of N images, once for each severity."
        )
    by_severity = torch.from_numpy(array.astype(np.int64)).view(SEVERITIES, -1)
    labels = by_severity[0]
    if not torch.equal(by_severity, labels.expand_as(by_severity)):
        raise DataError(
            f"{file}: the five severities have different labels; they should hold the same images."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{file} has labels from {low} to {high}, the model has {classes} classes. {_WHICH_SET}"
        )
    _check_class_counts(file, labels, test_labels.cpu(), classes)
    return labels


_WHICH_SET = "CIFAR-10-C is for models of cifar10, CIFAR-100-C for those of cifar100."


def _check_class_counts(file: Path, labels: Tensor, test_labels: Tensor, classes: int) -> None:
    """Raise `DataError` for a test set of the same size in which some class is larger or
    smaller."""
    counts = torch.bincount(labels, minlength=classes)
    expected = torch.bincount(test_labels, minlength=classes)
    if len(labels) == len(test_labels) and not torch.equal(counts, expected):
        k = int((counts != expected).nonzero()[0])
        raise DataError(
            f"{file} does not belong to the model's test set: it has {int(counts[k])} images of "
            f"class {k}, the test set {int(expected[k])}. {_WHICH_SET}"
        )


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
            f"the images in {file} have height, width, channels {array.shape[1:]}, the model takes "
            f"{(height, width, channels)}. Give the corruptions of the data set that it was "
            "trained on."
        )
