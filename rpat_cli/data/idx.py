"""The idx files of MNIST and Fashion-MNIST, gzipped or not, read without torchvision."""

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rpat_cli.data.base import LoadOptions, RawData
from rpat_cli.data.sources import File, Source
from rpat_cli.data.splits import TensorSplit
from rpat_cli.records.regular import read_regular

UINT8 = 0x08
"""The code of the element type in an idx header."""

GRAY_DEFAULTS = {
    "model": "small-cnn",
    "optimizer": {"lr": 0.1},
    "schedule": "one-cycle",
    "data": {"augment": ["crop:padding=1"]},
}
"""Recipe defaults for small gray images: minutes on a laptop. The objects are centered, so that a
wider crop would cost accuracy."""

STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The files of each part, without `.gz`: images, labels."""

ALL_STEMS = (*STEMS["train"], *STEMS["test"])


def idx_source(name: str, folder: str, url: str, other_way: str = "") -> Source:
    """The four files of an MNIST-like data set in `folder` below the data root, published at
    `url`."""
    archives = tuple(File(f"{folder}/{stem}.gz", url=f"{url}{stem}.gz") for stem in ALL_STEMS)
    return Source(name, tuple(File(f"{folder}/{stem}") for stem in ALL_STEMS), archives, other_way)


def load_idx(
    source: Source,
    torchvision_class: str,
    options: LoadOptions,
    names: tuple[str, ...],
    *elsewhere: Path,
) -> RawData:
    """Read the data set from below the data root or from one of the folders `elsewhere`; download
    it if it is in none of them and the options ask for it.

    Raises `DataError` if it is not found or a file is damaged.
    """
    folders = (options.root / Path(source.files[0].path).parent, *elsewhere)
    parts = ("test",) if options.test_only else ("train", "test")
    found = next((folder for folder in folders if _complete(folder, parts)), None)
    if found is None:
        if not options.download:
            raise source.missing(options.root, *folders)
        source.obtain(options, lambda _: _download(torchvision_class, options.root))
        found = folders[0]
    splits = {part: read_split(source, found, part) for part in parts}
    return RawData(splits.get("train"), splits["test"], names)


def read_split(source: Source, folder: Path, part: str) -> TensorSplit:
    """The part "train" or "test" of the data set in `folder`: images (N, 1, H, W) uint8 and labels.

    Raises `DataError` for a damaged file.
    """
    images_stem, labels_stem = STEMS[part]
    images = read_idx(source, _path(folder, images_stem), rank=3)
    labels = read_idx(source, _path(folder, labels_stem), rank=1)
    return TensorSplit(images.unsqueeze(1), labels.long())


def read_idx(source: Source, path: Path, rank: int) -> Tensor:
    """A uint8 tensor with `rank` dimensions.

    The format: two zero bytes, the element type, the rank, one big-endian uint32 for each size, the
    elements. Raises `DataError` if the file is truncated or of another format.
    """
    try:
        data = gzip.decompress(read_regular(path)) if path.suffix == ".gz" else read_regular(path)
    except (OSError, EOFError, zlib.error) as error:
        raise source.damaged(path, f"{error}, it may be half downloaded") from error
    header = 4 + 4 * rank
    if data[:4] != bytes((0, 0, UINT8, rank)) or len(data) < header:
        raise source.damaged(path, f"it is not an idx file of bytes with {rank} dimensions")
    sizes = np.frombuffer(data, dtype=">u4", count=rank, offset=4).tolist()
    if len(data) - header != np.prod(sizes):
        raise source.damaged(
            path, f"it holds {len(data) - header} elements, its header says {np.prod(sizes)}"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header).view(sizes)


def _path(folder: Path, stem: str) -> Path:
    plain = folder / stem
    return plain if plain.is_file() else folder / f"{stem}.gz"


def _complete(folder: Path, parts: Iterable[str]) -> bool:
    return all(_path(folder, stem).is_file() for part in parts for stem in STEMS[part])


def _download(torchvision_class: str, root: Path) -> None:
    from torchvision import datasets

    getattr(datasets, torchvision_class)(root, download=True)
