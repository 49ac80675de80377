"""From a name to a data set that is ready for training: read, check, hold out validation images."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from rpat_cli.data import DATASETS
from rpat_cli.data.base import GIB, Dataset, DatasetSpec, LoadOptions, RawData, Split
from rpat_cli.data.further import load_further
from rpat_cli.data.splits import StreamSplit, counted, stratified_choice
from rpat_cli.errors import ConfigError, DataError, Problem, UserCodeError
from rpat_cli.records.files import user_path
from rpat_cli.user_code import calling, where_defined

SPLIT_HAS = ("labels", "shape", "to", "subset", "batches", "tensors", "fingerprint", "__len__")
"""What a `Split` has."""

FILES_READ = 2000
"""Training images whose content is part of their fingerprint; of the others it is the size."""


def load_dataset(
    name: str,
    *,
    root: Path | str,
    val_size: int | float | None,
    seed: int = 0,
    download: bool = False,
    image_size: int | tuple[int, int] | None = None,
    memory_budget: int = 2 * GIB,
    workers: int = 0,
    test_data: str | None = None,
    **form: Any,
) -> Dataset:
    """Read the data set `name` below `root` and hold out `val_size` training images for validation.

    `val_size` is a count (int) or a fraction of the training images (float below 1); the choice is
    stratified and depends on `seed` only. With None only the test images are read, and all others
    may be missing. `memory_budget` is in bytes for one split. `workers` processes decode image
    files (0: this process does). `image_size` (pixels a side, or height and width) and `form`, the
    last five of `LoadOptions`, are for `imagefolder`. `test_data`, for evaluations alone: images to
    test on instead of the data set's own, see `load_further`.

    Raises `ConfigError` for an unknown name or an impossible `val_size` or `image_size`,
    `DataError` for files that are missing or damaged, `MissingExtraError` if reading needs a
    package that is not installed.
    """
    spec = DATASETS[name]
    test_only = val_size is None
    options = LoadOptions(
        user_path(root), download, image_size, memory_budget, workers, test_only, **form
    )
    _check_form(spec, options)
    _check_further(test_data, test_only)
    with calling(spec.load, "load(options)"):
        raw = spec.load(options)
    _check_raw(spec, raw)
    whole = None if val_size is None else raw.train
    if whole is not None:
        _check(spec, whole, "training", len(raw.class_names))
    elif not test_only:
        raise DataError(f"{spec.name}: there are no training images.")
    if test_data:
        file = user_path(test_data)
        raw = replace(raw, test=load_further(file, raw.test.shape, raw.class_names, options))
    _check(spec, raw.test, "test", len(raw.class_names))
    train = val = raw.test.subset(torch.arange(0))
    if whole is not None and raw.val is not None:
        _check(spec, raw.val, "validation", len(raw.class_names))
        train, val = whole, raw.val
    elif whole is not None and val_size is not None:
        train, val = _held_out(whole, val_size, seed)
    return Dataset(
        spec=spec,
        train=train,
        val=val,
        test=raw.test,
        class_names=raw.class_names,
        fingerprint=raw.test.fingerprint(),
        train_fingerprint="" if whole is None else _of_training(whole, raw.val),
        remarks=raw.remarks,
        further=Path(test_data).name if test_data else "",
    )


def _held_out(train: Split, val_size: int | float, seed: int) -> tuple[Split, Split]:
    """The images to train on, and those that were held out."""
    held_out = stratified_choice(train.labels, counted("val_size", val_size, train.labels), seed)
    kept = torch.ones(len(train), dtype=torch.bool)
    kept[held_out] = False
    return train.subset(kept.nonzero().flatten()), train.subset(held_out)


def _of_training(train: Split, val: Split | None) -> str:
    """The fingerprint of the training images, and of validation images that came as such; millions
    of files are not read for it."""
    if val is not None:
        both = _of_training(train, None) + _of_training(val, None)
        return sha256(both.encode()).hexdigest()
    if isinstance(train, StreamSplit):
        return train.fingerprint(at_most=FILES_READ)
    return train.fingerprint()


def _check_further(test_data: str | None, test_only: bool) -> None:
    if test_data and not test_only:
        message = "is for evaluations: the report of a training is on the data set's own images."
        raise ConfigError(Problem("data.test_data", message, hint="Leave it out."))


def _check_form(spec: DatasetSpec, options: LoadOptions) -> None:
    """Raise `ConfigError` for options that the data set does not have, or impossible ones."""
    size = options.image_size
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and min(sides) < 1:
        raise ConfigError(Problem("image_size", f"{size} must be at least 1 pixel."))
    if spec.shape is None:
        return
    for_folders = "Remove it; it is for imagefolder only."
    if sides is not None and sides != spec.shape[1:]:
        message = (
            f"{size} is not possible: the images of {spec.name} have {spec.shape[-1]} pixels "
            "a side."
        )
        raise ConfigError(Problem("image_size", message, hint=for_folders))
    if options.channels not in (None, spec.shape[0]):
        message = f"{options.channels}: the images of {spec.name} have {spec.shape[0]}."
        raise ConfigError(Problem("channels", message, hint=for_folders))
    if options.center_crop != 1:
        message = f"the images of {spec.name} are neither resized nor cropped."
        raise ConfigError(Problem("center_crop", message, hint=for_folders))
    if options.train_crop is not None:
        message = f"the images of {spec.name} are of one size: use data.augment."
        raise ConfigError(Problem("train_crop", message, hint=for_folders))
    if options.test_size is not None:
        message = f"{spec.name} has test images of its own."
        raise ConfigError(Problem("test_size", message, hint=for_folders))
    if options.val_folder:
        message = f"{spec.name} has no validation images of its own."
        raise ConfigError(Problem("val_folder", message, hint=for_folders))


def _check_raw(spec: DatasetSpec, raw: object) -> None:
    """Raises `UserCodeError` for what a plugin's loader returned instead of a `RawData`."""
    problem = ""
    if not isinstance(raw, RawData):
        problem = f"it returned {type(raw).__name__}"
    else:
        splits = {"train": raw.train, "test": raw.test}
        if raw.train is None:  # only the test images were asked for
            del splits["train"]
        for which, split in splits.items():
            missing = [name for name in SPLIT_HAS if not hasattr(split, name)]
            if missing:
                kind = type(split).__name__
                problem = f"{which} is of the type {kind}, which has no {', '.join(missing)}"
    if problem:
        raise UserCodeError(
            f"{where_defined(spec.load)}: the data set {spec.name!r} must load a RawData(train, "
            f"test, class_names) of splits, such as rpat_cli.data.splits.TensorSplit(x, y); "
            f"{problem}."
        )


def _check(spec: DatasetSpec, split: Split, which: str, classes: int) -> None:
    """Raise `DataError` where the files differ from what the data set is known to be."""
    if spec.classes is not None and classes != spec.classes:
        raise DataError(
            f"{spec.name} has {spec.classes} classes, but its files name {classes}: is a part "
            "of it missing?"
        )
    if not len(split):
        raise DataError(f"{spec.name}: there are no {which} images.")
    if spec.shape is not None and split.shape != spec.shape:
        raise DataError(
            f"{spec.name}: {which} images are {split.shape} (C, H, W), but should be {spec.shape}."
        )
    if split.labels.dtype != torch.int64:
        raise DataError(
            f"{spec.name}: {which} labels are {split.labels.dtype}, but should be torch.int64."
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{spec.name}: {which} labels run from {low} to {high}, but should be 0 to "
            f"{classes - 1}."
        )
