"""Data sets and augmentations, by name. Importing this package does not import torch: entries are
resolved lazily."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rpat_cli.registry import Registry

if TYPE_CHECKING:
    from rpat_cli.data.augment import Augment
    from rpat_cli.data.base import DatasetSpec
    from rpat_cli.data.mixing import Mixing

DATASETS: Registry[DatasetSpec] = Registry(
    "data set",
    {
        "fashion-mini": "rpat_cli.data.fashion:FASHION_MINI",
        "fashion-mnist": "rpat_cli.data.fashion:FASHION_MNIST",
        "mnist": "rpat_cli.data.mnist:MNIST",
        "cifar10": "rpat_cli.data.cifar:CIFAR10",
        "cifar100": "rpat_cli.data.cifar:CIFAR100",
        "svhn": "rpat_cli.data.svhn:SVHN",
        "tiny-imagenet": "rpat_cli.data.tiny_imagenet:TINY_IMAGENET",
        "imagefolder": "rpat_cli.data.folders:IMAGEFOLDER",
        "in-memory": "rpat_cli.data.in_memory:IN_MEMORY",
    },
)

AUGMENTATIONS: Registry[Callable[..., Augment]] = Registry(
    "augmentation",
    {
        "crop": "rpat_cli.data.augment:random_crop",
        "flip": "rpat_cli.data.augment:random_flip",
        "crop-flip": "rpat_cli.data.augment:crop_flip",
        "cutout": "rpat_cli.data.augment:cutout",
        "autoaugment": "rpat_cli.data.augment:autoaugment",
        "randaugment": "rpat_cli.data.augment:randaugment",
        "trivialaugment": "rpat_cli.data.augment:trivialaugment",
        "cropshift": "rpat_cli.data.idbh:cropshift",
        "colorshape": "rpat_cli.data.idbh:colorshape",
        "erasing": "rpat_cli.data.idbh:erasing",
        "idbh": "rpat_cli.data.idbh:idbh",
    },
)
"""Factories `(image_size, **settings) -> Augment`; what the signature names are the settings of a
recipe."""

MIXINGS: Registry[type[Mixing]] = Registry(
    "mixing",
    {
        "cutmix": "rpat_cli.data.mixing:CutMix",
        "mixup": "rpat_cli.data.mixing:MixUp",
    },
)
"""Frozen dataclasses whose fields are the settings of a recipe."""
