"""Images that a Python program has: tensors, or any `torch.utils.data.Dataset` that is indexed by
numbers. They are given to `rpat.train` and `rpat.evaluate` as `data=...`, and to plugins as
splits."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData, Shape, Split
from rpat_cli.data.splits import (
    TensorSplit,
    as_classes,
    batched,
    counted,
    in_chunks,
    stratified_choice,
    unit,
)
from rpat_cli.errors import ConfigError, DataError, Problem

NAME = "in-memory"

TEST_SIZE = 0.2
"""Share of the images held out as test images where a training is given none."""

SAMPLE = 2000
"""Images of a `Dataset` that are read to identify it."""


@dataclass(frozen=True)
class Given:
    """What the caller has: training images (none for an evaluation) and test images (none: they are
    held out of the training images)."""

    train: Split | None
    test: Split | None
    class_names: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        split = self.test if self.train is None else self.train
        assert split is not None
        return split.shape


_given: ContextVar[Given | None] = ContextVar("given", default=None)


@contextmanager
def providing(given: Given | None) -> Iterator[None]:
    """Inside, the data set `in-memory` has these images."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


def taken_from(data: object, *, training: bool) -> tuple[Given | None, Any]:
    """What `data=...` of a Python call gives: images, if it is (x, y), a `Dataset`, or a mapping
    with such as "train" or "test" (and "class_names", and recipe keys); and the recipe's section.

    Raises `DataError` for images of another form.
    """
    if not isinstance(data, Mapping):
        if isinstance(data, str) or data is None:
            return None, data
        data = {"train" if training else "test": data}
    if not {"train", "test"} & set(data):
        return None, data
    parts = {which: as_split(data[which]) for which in ("train", "test") if which in data}
    _check_parts(parts, training=training)
    train = parts["train"] if training else None
    given = Given(train, parts.get("test"), _class_names(data, parts))
    channels, height, width = given.shape
    section = {key: data[key] for key in data if key not in ("train", "test", "class_names")}
    return given, {"name": NAME, "image_size": [height, width], "channels": channels, **section}


def _check_parts(parts: Mapping[str, Split], *, training: bool) -> None:
    if training and "train" not in parts:
        raise DataError("data: a training needs training images: data={'train': (x, y), ...}.")
    if not training and "test" not in parts:
        raise DataError("data: an evaluation needs test images: data=(x, y).")
    shapes = [split.shape for split in parts.values()]
    if len(set(shapes)) > 1:
        both = " and ".join(map(str, shapes))
        raise DataError(f"data: training and test images have different shapes: {both}.")


def _class_names(data: Mapping[str, Any], parts: Mapping[str, Split]) -> tuple[str, ...]:
    classes = 1 + max(int(split.labels.max()) for split in parts.values() if len(split))
    names = tuple(map(str, data.get("class_names") or range(classes)))
    if len(names) < classes:
        raise DataError(f"data: labels run to {classes - 1}, but there are {len(names)} names.")
    return names


def as_split(images: object) -> Split:
    """(x, y), with x (N, C, H, W) uint8, or floats in [0, 1], and y (N,) integers; or a `Dataset`
    of pairs of an image and its class, or a `DataLoader`. Raises `DataError` for anything else."""
    if isinstance(images, torch_data.DataLoader):
        images = _loaded(images)
    if isinstance(images, tuple | list) and len(images) == 2:
        x, y = (torch.as_tensor(part) for part in images)
        if x.dtype == torch.uint8:
            return TensorSplit(x, y)
        if x.ndim != 4 or len(x) != len(y):
            raise DataError(
                f"data: x must be (N, C, H, W) and y (N,), given {tuple(x.shape)} and "
                f"{tuple(y.shape)}."
            )
        return DatasetSplit(torch_data.TensorDataset(x, y), as_classes(y))
    if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        kind = f"{type(images).__module__}.{type(images).__name__}"
        raise DataError(
            "data: images must be (x, y), or a torch.utils.data.Dataset with __getitem__ and "
            f"__len__, or a DataLoader, given {kind}."
        )
    return DatasetSplit(images)


def _loaded(loader: "torch_data.DataLoader[Any]") -> object:
    """The dataset that a loader reads; or the batches of one that reads only a part of it, streams,
    or collates in a way of its own, which have to be kept in memory."""
    samplers = (torch_data.SequentialSampler, torch_data.RandomSampler)
    dataset, sampler = loader.dataset, loader.sampler
    usual = loader.collate_fn is torch_data.default_collate and not loader.drop_last
    usual = usual and loader.batch_size is not None  # or the batches are chosen in another way
    streams = isinstance(dataset, torch_data.IterableDataset)
    if usual and not streams and isinstance(sampler, samplers):
        whole: Any = dataset
        again = getattr(sampler, "replacement", False)
        if len(sampler) == len(whole) and not again:
            return dataset
    batches = []
    for batch in loader:
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise DataError("data: the batches of a DataLoader must be pairs (x, y).")
        if not all(isinstance(part, Tensor) and part.ndim for part in batch):
            raise DataError(
                "data: the batches of a DataLoader must be tensors, x (B, C, H, W) and y (B,). "
                "With batch_size=None its dataset has to make whole batches."
            )
        batches.append(batch)
    if not batches:
        raise DataError("data: the DataLoader has no batches.")
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


@dataclass(frozen=True)
class _Items(torch_data.Dataset[Tensor | DataError]):
    """Indexed by a whole batch of indices. `draw` is mixed into the seed of every item."""

    items: Any
    draw: str

    def __getitem__(self, indices: list[int]) -> Tensor | DataError:
        try:
            return torch.stack([self._image(index) for index in indices])
        except DataError as error:
            return error

    def _image(self, index: int) -> Tensor:
        with _seeded(f"{self.draw}/{index}"):
            return _as_image(self.items[index][0], index)


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    """Inside, the global generators begin at a seed of its own, so that the random transforms of an
    item depend neither on other items nor on the process that makes it."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _as_image(image: Any, index: int) -> Tensor:
    """(C, H, W), uint8 or float32 in [0, 1]. Raises `DataError`."""
    if not isinstance(image, Tensor):
        array = np.array(image)  # of Pillow, or of numpy, with the channels last
        image = torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)
    assert isinstance(image, Tensor)
    if image.dtype == torch.uint8:
        return image
    if image.ndim != 3 or not image.is_floating_point():
        raise DataError(
            f"data: image {index} is {image.dtype} of shape {tuple(image.shape)}; images must be "
            "(C, H, W), uint8 or floats in [0, 1]."
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise DataError(
            f"data: image {index} has pixels in [{image.min():.4g}, {image.max():.4g}], but floats "
            "must be in [0, 1]. Leave out Normalize: normalization is part of the model."
        )
    return image.float()


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """A `torch.utils.data.Dataset` of pairs of an image and its class, as a split.

    Images are tensors (C, H, W), or of Pillow or numpy; uint8, or floats in [0, 1]. Random
    transforms in it draw anew in every epoch of a training; in validation and evaluation they are
    the same every time, whatever the number of `workers`. Without `labels` (N,) int64, those of the
    dataset are taken (`targets`, `labels`), or all items are read once.
    """

    items: Any
    given_labels: Tensor | None = None
    chosen: Tensor | None = None
    workers: int = 0
    draw: str = ""

    def __post_init__(self) -> None:
        if self.given_labels is None:
            object.__setattr__(self, "given_labels", _labels_of(self.items))

    @property
    def labels(self) -> Tensor:
        assert self.given_labels is not None
        return self.given_labels if self.chosen is None else self.given_labels[self.chosen]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        first = 0 if self.chosen is None or not len(self.chosen) else int(self.chosen[0])
        channels, height, width = _Items(self.items, "")._image(first).shape
        return channels, height, width

    def to(self, device: torch.device | str) -> "DatasetSplit":  # noqa: ARG002
        return self  # its items may be random

    def in_epoch(self, seed: int, epoch: int) -> "DatasetSplit":
        return replace(self, draw=f"{seed}/{epoch}")

    def subset(self, indices: Tensor) -> "DatasetSplit":
        return replace(self, chosen=self._in_items(indices.cpu()))

    def batches(
        self, order: Tensor, batch_size: int, device: torch.device | str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.batches`. Raises `DataError` for images of another form."""
        chunks = in_chunks(order.cpu(), batch_size)
        pin = torch.device(device).type == "cuda"
        places = [self._in_items(chunk) for chunk in chunks]
        images = batched(_Items(self.items, self.draw), places, self.workers, pin)
        for pixels, chunk in zip(images, chunks, strict=True):
            x = pixels.to(device, non_blocking=pin)
            yield unit(x) if x.dtype == torch.uint8 else x, self.labels[chunk].to(device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        x = [x for x, _ in self.batches(torch.arange(len(self)), 256, "cpu")]
        return torch.cat(x), self.labels

    def fingerprint(self) -> str:
        """sha256 (hex) of all labels, and of `SAMPLE` images, evenly spread."""
        n = len(self)
        digest = hashlib.sha256(repr((n, *self.shape)).encode())
        digest.update(self.labels.numpy().data)
        sample = (torch.arange(min(n, SAMPLE)) * n) // min(n, SAMPLE) if n else torch.arange(0)
        for x, _ in self.batches(sample, 100, "cpu"):
            digest.update(x.contiguous().numpy().data)
        return digest.hexdigest()

    def _in_items(self, indices: Tensor) -> Tensor:
        return indices if self.chosen is None else self.chosen[indices]


def _labels_of(items: Any) -> Tensor:
    for name in ("targets", "labels"):
        listed = getattr(items, name, None)
        if listed is not None and len(listed) == len(items):
            return as_classes(torch.as_tensor(listed))
    with _seeded(""):
        return as_classes(torch.tensor([_class_of(items, index) for index in range(len(items))]))


def _class_of(items: Any, index: int) -> int:
    """Raises `DataError` for an item that is no pair of an image and its class."""
    item = items[index]
    if not (isinstance(item, tuple | list) and len(item) > 1):
        raise DataError(f"data: item {index} must be a pair of an image and its class.")
    return int(item[1])


def _load(options: LoadOptions) -> RawData:
    given = _given.get()
    if given is None:
        raise DataError(
            "the data set in-memory is of images that were given in Python: give them again, as "
            "data=(x, y) of rpat.train or rpat.evaluate."
        )
    sides = given.shape[1:]
    asked = options.image_size
    if (asked, asked) != sides and asked != sides:
        message = f"the images that were given are {sides[0]}x{sides[1]}."
        raise ConfigError(Problem("image_size", message))
    train, test = (_with_workers(split, options) for split in (given.train, given.test))
    if test is None:
        assert train is not None
        size = TEST_SIZE if options.test_size is None else options.test_size
        held_out = stratified_choice(train.labels, counted("test_size", size, train.labels), 0)
        kept = torch.ones(len(train), dtype=torch.bool)
        kept[held_out] = False
        test, train = train.subset(held_out), train.subset(kept.nonzero().flatten())
    return RawData(train, test, given.class_names)


def _with_workers(split: Split | None, options: LoadOptions) -> Split | None:
    if isinstance(split, DatasetSplit):
        return replace(split, workers=options.workers)
    return split


IN_MEMORY = DatasetSpec(
    name=NAME,
    shape=None,
    classes=None,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    eps=COLOR_EPS,
    load=_load,
    defaults={"data": {"val_size": 0.1}},
)
