"""CIFAR-10-C in small: files of the published form, whose images a model of the test can read the
answer from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

CLASSES = 10

Wrong = Callable[[str, int], int]
"""Name of a corruption, severity from 1 -> how many of the ten classes look like the next one."""


def write_corrupted(
    folder: Path,
    names: Sequence[str],
    labels: np.ndarray,
    wrong: Wrong,
    image: tuple[int, ...] = (4, 4, 1),
) -> Path:
    """Every pixel of an image is the number of the class that it looks like."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "labels.npy", np.tile(labels, 5))
    for name in names:
        looks = [
            np.where(labels < wrong(name, severity), labels + 1, labels) % CLASSES
            for severity in range(1, 6)
        ]
        pixels = np.concatenate(looks).astype(np.uint8)
        np.save(
            folder / f"{name}.npy",
            np.broadcast_to(pixels.reshape(-1, 1, 1, 1), (len(pixels), *image)),
        )
    return folder
