"""MNIST: 28 x 28 handwritten digits (LeCun, Bottou, Bengio & Haffner 1998)."""

from rpat_cli.data.base import DatasetSpec, LoadOptions, RawData
from rpat_cli.data.idx import GRAY_DEFAULTS, idx_source, load_idx

SOURCE = idx_source("mnist", "MNIST/raw", "https://ossci-datasets.s3.amazonaws.com/mnist/")
CLASS_NAMES = tuple("0123456789")


def load(options: LoadOptions) -> RawData:
    """Read `MNIST/raw/` below the data root, as torchvision lays it out. Raises `DataError`."""
    return load_idx(SOURCE, "MNIST", options, CLASS_NAMES)


MNIST = DatasetSpec(
    name="mnist",
    shape=(1, 28, 28),
    classes=10,
    mean=(0.1307,),
    std=(0.3081,),
    eps={"Linf": 0.3, "L2": 2.0, "L1": 10.0},
    load=load,
    defaults={**GRAY_DEFAULTS, "epochs": 15},
    train_images=60_000,
)
