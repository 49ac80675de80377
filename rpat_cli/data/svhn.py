"""SVHN, cropped house-number digits (Netzer et al. 2011), read by torchvision with scipy."""

from typing import Any

import torch

from rpat_cli.data.base import COLOUR_EPS, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.sources import File, Source
from rpat_cli.data.splits import TensorSplit

PARTS = ("train", "test")


def load(options: LoadOptions) -> RawData:
    """Read `train_32x32.mat` and `test_32x32.mat` in the data root. Raises `DataError`."""
    from torchvision import datasets

    def read(fetch: bool) -> RawData:
        train, test = (
            _split(datasets.SVHN(options.root, split=part, download=fetch)) for part in PARTS
        )
        return RawData(train, test, tuple("0123456789"))

    listed = [datasets.SVHN.split_list[part] for part in PARTS]
    files = tuple(File(path, md5, url) for url, path, md5 in listed)
    return Source("svhn", files, archives=files).obtain(options, read)


def _split(data: Any) -> TensorSplit:
    return TensorSplit(
        torch.from_numpy(data.data).contiguous(), torch.from_numpy(data.labels).view(-1)
    )


SVHN = DatasetSpec(
    name="svhn",
    shape=(3, 32, 32),
    classes=10,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    eps=COLOUR_EPS,
    load=load,
    # Mirrored digits are other signs. The usual rate of 0.1 does not get adversarial training on
    # SVHN off the ground.
    defaults={"data": {"augment": ["crop"]}, "optimizer": {"lr": 0.01}},
)
