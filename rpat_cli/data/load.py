"""From a name to a data set that is ready for training: read, check, hold out validation images."""

from pathlib import Path

import torch
from torch import Tensor

from rpat_cli.data import DATASETS
from rpat_cli.data.base import GIB, Dataset, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.splits import stratified_choice
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.records.files import user_path


def load_dataset(
    name: str,
    *,
    root: Path | str,
    val_size: int | float,
    seed: int = 0,
    download: bool = False,
    image_size: int | None = None,
    memory_budget: int = 2 * GIB,
    workers: int = 0,
) -> Dataset:
    """Read the data set `name` below `root` and hold out `val_size` training images for validation.

    `val_size` is a count (int) or a fraction of the training images (float below 1); the choice is
    stratified and depends on `seed` only. `image_size` (pixels a side) is for `imagefolder`.
    `memory_budget` is in bytes for one split. `workers` processes decode image files (0: this
    process does).

    Raises `ConfigError` for an unknown name or an impossible `val_size` or `image_size`,
    `DataError` for files that are missing or damaged, `MissingExtraError` if reading needs a
    package that is not installed.
    """
    spec = DATASETS[name]
    _check_image_size(spec, image_size)
    raw = spec.load(LoadOptions(user_path(root), download, image_size, memory_budget, workers))
    _check(spec, raw)
    held_out = stratified_choice(raw.train.labels, _val_count(val_size, raw.train.labels), seed)
    kept = torch.ones(len(raw.train), dtype=torch.bool)
    kept[held_out] = False
    return Dataset(
        spec=spec,
        train=raw.train.subset(kept.nonzero().flatten()),
        val=raw.train.subset(held_out),
        test=raw.test,
        class_names=raw.class_names,
        fingerprint=raw.test.fingerprint(),
    )


def _val_count(val_size: int | float, labels: Tensor) -> int:
    """How many images to hold out. Raises `ConfigError`."""
    total, classes = len(labels), len(set(labels.tolist()))
    hint = "Choose a smaller one, for example 0.1."
    is_fraction = isinstance(val_size, float)
    if val_size < 0 or (is_fraction and not val_size < 1):
        allowed = "must be a count (an integer >= 0) or a fraction (0 <= fraction < 1)."
        raise ConfigError(Problem("val_size", f"{val_size} {allowed}", hint=hint))
    count = int(val_size)
    if is_fraction and val_size:
        count = max(1, round(val_size * total))
    if count > total - classes:
        message = (
            f"{val_size} asks for {count} of {total} training images; at most {total - classes}, "
            "since each class keeps one for training."
        )
        raise ConfigError(Problem("val_size", message, hint=hint))
    return count


def _check_image_size(spec: DatasetSpec, image_size: int | None) -> None:
    if image_size is None:
        return
    if image_size < 1:
        raise ConfigError(Problem("image_size", f"{image_size} must be at least 1 pixel."))
    if spec.shape is not None and image_size != spec.shape[-1]:
        message = (
            f"{image_size} is not possible: the images of {spec.name} have {spec.shape[-1]} pixels "
            "a side."
        )
        hint = "Remove it; it is for imagefolder only."
        raise ConfigError(Problem("image_size", message, hint=hint))


def _check(spec: DatasetSpec, raw: RawData) -> None:
    """Raise `DataError` where the files differ from what the data set is known to be."""
    classes = len(raw.class_names)
    if spec.classes is not None and classes != spec.classes:
        raise DataError(
            f"{spec.name} has {spec.classes} classes, but its files name {classes}: is a part "
            "of it missing?"
        )
    for split, which in ((raw.train, "training"), (raw.test, "test")):
        if not len(split):
            raise DataError(f"{spec.name}: there are no {which} images.")
        if spec.shape is not None and split.shape != spec.shape:
            raise DataError(
                f"{spec.name}: {which} images are {split.shape} (C, H, W), but should be "
                f"{spec.shape}."
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= classes:
            raise DataError(
                f"{spec.name}: {which} labels run from {low} to {high}, but should be 0 to "
                f"{classes - 1}."
            )
