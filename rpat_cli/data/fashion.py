"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747): the whole, and the subset
`fashion-mini` that comes with this package."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from rpat_cli.data.base import DatasetSpec, LoadOptions, RawData
from rpat_cli.data.idx import GRAY_DEFAULTS, idx_source, load_idx, read_split
from rpat_cli.data.splits import TensorSplit, stratified_choice

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SOURCE = idx_source(
    "fashion-mnist",
    "FashionMNIST/raw",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    other_way="apt install dataset-fashion-mnist",
)
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
EPS = {"Linf": 0.1, "L2": 1.5, "L1": 10.0}
"""Default eps by norm, for pixels in [0, 1]."""

MINI_SIZES = {"train": 2000, "test": 500}
MINI_SEED = 0


def load_full(options: LoadOptions) -> RawData:
    """Read `FashionMNIST/raw/` below the data root, or the files of Debian's package
    `dataset-fashion-mnist`. Raises `DataError`."""
    return load_idx(SOURCE, "FashionMNIST", options, CLASS_NAMES, DEBIAN_FOLDER)


def load_mini(_: LoadOptions) -> RawData:
    """The 2,000 training and 500 test images inside this package; needs no other file and no
    network."""
    packed = files("rpat_cli.data") / "fashion_mini.npz"
    with packed.open("rb") as stream, np.load(stream) as arrays:
        train, test = (_mini_split(arrays, part) for part in MINI_SIZES)
    return RawData(train, test, CLASS_NAMES)


def _mini_split(arrays: Mapping[str, np.ndarray], part: str) -> TensorSplit:
    images, labels = torch.from_numpy(arrays[f"x_{part}"]), torch.from_numpy(arrays[f"y_{part}"])
    return TensorSplit(images, labels.long())


def make_mini(folder: Path = DEBIAN_FOLDER) -> dict[str, np.ndarray]:
    """The arrays of fashion_mini.npz, chosen from the whole data set in `folder`: images (uint8,
    NCHW) and labels (uint8).

    The file in this package is `np.savez_compressed("fashion_mini.npz", **make_mini())`: the same
    number of images of each class, training images from the training files and test images from the
    test files. Raises `DataError`.
    """
    arrays = {}
    for part, size in MINI_SIZES.items():
        whole = read_split(SOURCE, folder, part)
        chosen = whole.subset(stratified_choice(whole.labels, size, MINI_SEED))
        arrays[f"x_{part}"] = chosen.images.numpy()
        arrays[f"y_{part}"] = chosen.labels.numpy().astype(np.uint8)
    return arrays


FASHION_MNIST = DatasetSpec(
    name="fashion-mnist",
    shape=(1, 28, 28),
    classes=10,
    mean=(0.2860,),
    std=(0.3530,),
    eps=EPS,
    load=load_full,
    defaults={**GRAY_DEFAULTS, "epochs": 15},
    train_images=60_000,
)
FASHION_MINI = DatasetSpec(
    name="fashion-mini",
    shape=(1, 28, 28),
    classes=10,
    mean=(0.2865,),
    std=(0.3527,),
    eps=EPS,
    load=load_mini,
    defaults={
        **GRAY_DEFAULTS,
        "epochs": 10,
        "batch_size": 50,
        "data": {"val_size": 400, "augment": ["crop:padding=1"]},
    },
)
