"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
2009), read by torchvision, which verifies every file's checksum."""

from typing import Any

import torch

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.sources import File, Source
from rpat_cli.data.splits import TensorSplit


def load_cifar10(options: LoadOptions) -> RawData:
    """Read `cifar-10-batches-py/` below the data root. Raises `DataError`."""
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, options)


def load_cifar100(options: LoadOptions) -> RawData:
    """Read `cifar-100-python/` below the data root (the 100 fine labels). Raises `DataError`."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, options)


def _load(name: str, reader: Any, options: LoadOptions) -> RawData:
    if options.test_only:  # torchvision checks all the files that its class lists
        reader = type(reader.__name__, (reader,), {"train_list": []})

    def read(fetch: bool) -> RawData:
        test = reader(options.root, train=False, download=fetch)
        train = None if options.test_only else _split(reader(options.root, train=True))
        return RawData(train, _split(test), tuple(test.classes))

    return _source(name, reader).obtain(options, read)


def _source(name: str, reader: Any) -> Source:
    listed = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    parts = tuple(File(f"{reader.base_folder}/{file}", md5) for file, md5 in listed)
    return Source(name, parts, (File(reader.filename, reader.tgz_md5, reader.url),))


def _split(data: Any) -> TensorSplit:
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.tensor(data.targets, dtype=torch.int64))


CIFAR10 = DatasetSpec(
    name="cifar10",
    shape=(3, 32, 32),
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    eps=COLOR_EPS,
    load=load_cifar10,
    defaults={"data": {"augment": ["crop-flip"]}},
    train_images=50_000,
)
CIFAR100 = DatasetSpec(
    name="cifar100",
    shape=(3, 32, 32),
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    eps=COLOR_EPS,
    load=load_cifar100,
    defaults={"data": {"augment": ["crop-flip"]}},
    train_images=50_000,
)
