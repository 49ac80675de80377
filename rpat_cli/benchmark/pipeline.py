"""Training batches as published code makes them: images opened one by one with PIL, torchvision's
transforms, a DataLoader."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils import data as torch_data
from torchvision import transforms

from rpat_cli.data.augment import Augment
from rpat_cli.data.base import Split

ONE_BY_ONE: dict[str, Callable[[int], list[object]]] = {
    "crop": lambda size: [transforms.RandomCrop(size, padding=round(size / 8))],
    "flip": lambda _: [transforms.RandomHorizontalFlip()],
    "crop-flip": lambda size: [*ONE_BY_ONE["crop"](size), *ONE_BY_ONE["flip"](size)],
    "autoaugment": lambda _: [transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)],
    "randaugment": lambda _: [transforms.RandAugment()],
}
"""Augmentation -> torchvision's transforms of one image, for a side in pixels. Others are left
out, to the published pipeline's advantage."""


def _composed(steps: list[object]) -> Any:
    """The steps, and to a tensor (C, H, W) in [0, 1]; torchvision has no types."""
    untyped: Any = transforms
    return untyped.Compose([*steps, untyped.ToTensor()])


class _Images(torch_data.Dataset[tuple[list[Tensor], int]]):
    """uint8 images (N, H, W, C) and labels; an item is so many augmented views of one."""

    def __init__(self, pixels: np.ndarray, labels: list[int], names: list[str], views: int) -> None:
        self._pixels, self._labels, self._views = pixels, labels, views
        steps: list[object] = []
        for name in names:
            if name in ONE_BY_ONE:
                steps += ONE_BY_ONE[name](pixels.shape[1])
        self._transform: Callable[[Image.Image], Tensor] = _composed(steps)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        image = Image.fromarray(self._pixels[index].squeeze())
        return [self._transform(image) for _ in range(self._views)], self._labels[index]


@dataclass
class OneByOne:
    """The published data path; a contestant. `names` are augmentations, `workers` processes."""

    split: Split
    names: list[str]
    batch_size: int
    views: int
    device: torch.device
    workers: int = 0
    name: str = "data: PIL, one by one"

    def __post_init__(self) -> None:
        x, y = self.split.subset(torch.arange(min(len(self.split), MOST_IMAGES))).tensors()
        pixels = x.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        self._loader = torch_data.DataLoader(
            _Images(pixels, y.tolist(), self.names, self.views),
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self._batches: Iterator[tuple[list[Tensor], Tensor]] = iter(())

    def batch(self) -> tuple[Tensor, Tensor]:
        """x (views · B, C, H, W) and y (views · B,), on the device."""
        try:
            views, y = next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            views, y = next(self._batches)
        return torch.cat(views).to(self.device), torch.cat([y] * self.views).to(self.device)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.batch()


MOST_IMAGES = 5_000
"""More of them change no time of a batch."""


@dataclass
class InBatches:
    """Our data path, a batch at a time on the device; a contestant."""

    split: Split
    augment: Augment
    batch_size: int
    views: int
    device: torch.device
    name: str = "data: ours"

    def run(self, steps: int) -> None:
        order = torch.randperm(len(self.split))[: steps * self.batch_size]
        for x, _ in self.split.batches(order, self.batch_size, self.device):
            torch.cat([self.augment(x) for _ in range(self.views)])
