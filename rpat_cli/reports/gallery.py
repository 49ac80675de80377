"""The worst adversarial examples of an evaluation, to be looked at."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rpat_cli.diagnostics.blocks import Example, Examples, Raster
from rpat_cli.records import examples as records
from rpat_cli.reports.words import class_name

PER_CLASS, MOST = 2, 20
"""Examples shown of each true class, and in all."""

SIDE = 64
"""Of larger images every second, third, ... pixel is shown, so that the page stays small."""


def gallery(kept: records.Examples, names: Sequence[str]) -> Examples | None:
    """Clean image, adversarial image and magnified perturbation of some examples, the worst first;
    `None` without any, and for images that are neither gray nor in color."""
    if not len(kept) or kept.clean.shape[1] not in (1, 3):
        return None
    chosen: list[Example] = []
    of_class = Counter[int]()
    for row in np.argsort(kept.margin, kind="stable").tolist():
        label = int(kept.y[row])
        if of_class[label] < PER_CLASS and len(chosen) < MOST:
            of_class[label] += 1
            chosen.append(_example(kept, row, names))
    note = "The perturbation is magnified as it says below it; gray is no change."
    if max(kept.clean.shape[2:]) > SIDE:
        note += f" Images of more than {SIDE} pixels a side are thinned out."
    return Examples(tuple(chosen), note)


def _example(kept: records.Examples, row: int, names: Sequence[str]) -> Example:
    seen = class_name(names, int(kept.clean_predicted[row]))
    taken_for = class_name(names, int(kept.predicted[row]))
    delta = kept.delta[row]
    factor = 0.5 / max(float(np.abs(delta).max()), 1e-6)
    images = (
        _raster(kept.clean[row] / np.float32(255), seen),
        _raster(kept.x_adv[row], taken_for),
        _raster(0.5 + factor * delta, f"\u00d7 {factor:.3g}"),
    )
    detail = f"image {kept.index[row]}, {kept.attack[row]}, margin {kept.margin[row]:.3g}"
    return Example(f"{class_name(names, int(kept.y[row]))} \u2192 {taken_for}", images, detail)


def _raster(image: NDArray[np.float32], text: str) -> Raster:
    """Of an image (C, H, W) in [0, 1]."""
    channels, height, width = image.shape
    apart = -(-max(height, width) // SIDE)
    pixels = np.rint(image[:, ::apart, ::apart].clip(0, 1) * 255).astype(np.uint8)
    _, height, width = pixels.shape
    return Raster(width, height, channels, pixels.transpose(1, 2, 0).tobytes(), text)
