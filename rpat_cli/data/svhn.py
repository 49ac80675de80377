"""SVHN, cropped house-number digits (Netzer et al. 2011), read by torchvision with scipy."""

from typing import Any

import torch

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.sources import File, Source
from rpat_cli.data.splits import TensorSplit


def load(options: LoadOptions) -> RawData:
    """Read `train_32x32.mat` and `test_32x32.mat` in the data root. Raises `DataError`."""
    from torchvision import datasets

    parts = ("test",) if options.test_only else ("train", "test")

    def read(fetch: bool) -> RawData:
        splits = {}
        for part in parts:
            data = datasets.SVHN(options.root, split=part, download=fetch)
            splits[part] = _split(data)
        return RawData(splits.get("train"), splits["test"], tuple("0123456789"))

    listed = [datasets.SVHN.split_list[part] for part in parts]
    files = tuple(File(path, md5, url) for url, path, md5 in listed)
    return Source("svhn", files, archives=files).obtain(options, read)


def _split(data: Any) -> TensorSplit:
    images, labels = torch.from_numpy(data.data), torch.from_numpy(data.labels)
    return TensorSplit(images.contiguous(), labels.view(-1))


SVHN = DatasetSpec(
    name="svhn",
    shape=(3, 32, 32),
    classes=10,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    eps=COLOR_EPS,
    load=load,
    # No flips: a mirrored digit is no digit. At the usual learning rate of 0.1, adversarial
    # training on SVHN does not get off the ground.
    defaults={"data": {"augment": ["crop"]}, "optimizer": {"lr": 0.01}},
    train_images=73_257,
)
