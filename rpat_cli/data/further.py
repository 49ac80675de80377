"""Further test images for a data set: newly collected ones (CIFAR-10.1), corrupted ones, or images
from elsewhere of the same classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rpat_cli.data.base import LoadOptions, Shape, Split
from rpat_cli.data.extra import load_extra
from rpat_cli.data.folders import raw_data
from rpat_cli.data.images import printable
from rpat_cli.data.splits import TensorSplit
from rpat_cli.data.trees import class_folders, labeled, split_folder
from rpat_cli.errors import DataError


def load_further(
    path: Path, shape: Shape, class_names: tuple[str, ...], options: LoadOptions
) -> Split:
    """The images of a folder `CLASS/*` or `test/CLASS/*`, resized to `shape` (C, H, W), or of
    files of arrays as `load_extra` reads them.

    Folders are called as classes of the data set, or by their numbers from 0; some classes may be
    missing. Raises `DataError` for what is missing, damaged, or of other classes.
    """
    if not path.exists():
        raise DataError(f"there are no test images {printable(path)}. Check --test-data.")
    root = split_folder(path, "test") or split_folder(path, "val") or path
    folders = class_folders(root) if root.is_dir() else []
    if not folders:
        return _of_arrays(path, shape, len(class_names), options)
    known = _by_class(folders, class_names, root)
    # The place of a folder among these is the number of its class.
    places = [known.get(number, f"/{number}") for number in range(len(class_names))]
    channels, height, width = shape
    form = replace(options, image_size=(height, width), channels=channels)
    return raw_data(form, root, None, labeled(root, folders), places, class_names).test


def _by_class(folders: list[str], class_names: tuple[str, ...], root: Path) -> dict[int, str]:
    """The folders by the numbers of their classes."""
    by_name = {str(number): number for number in range(len(class_names))}
    # Classes may be called by other numbers: then those are meant.
    by_name |= {name.casefold(): number for number, name in enumerate(class_names)}
    strange = [name for name in folders if name.casefold() not in by_name]
    found = {by_name[name.casefold()]: name for name in folders if name not in strange}
    if strange:
        shown = ", ".join(map(printable, strange[:5]))
        raise DataError(
            f"{printable(root)} has folders that are no class of the data set: {shown}. Its "
            f"classes: {', '.join(class_names[:20])}; their numbers from 0 will do, too."
        )
    if len(found) < len(folders):
        raise DataError(f"{printable(root)} has two folders of one class.")
    return found


def _of_arrays(path: Path, shape: Shape, classes: int, options: LoadOptions) -> TensorSplit:
    """Read whole: test sets are small."""
    parts = load_extra([path], shape, classes, options.memory_budget).parts
    images = np.concatenate([block for part in parts for block in part.blocks()])
    labels = torch.cat([part.labels for part in parts])
    return TensorSplit(torch.from_numpy(images), labels.long())
