"""The augmentations of IDBH (Li & Spratling, "Data Augmentation Alone Can Improve Adversarial
Training", ICLR 2023, arXiv 2301.09879): CropShift, one change of color or shape, random erasing.

Random numbers as in `rpat_cli.data.augment`; those of the changes of color and shape are the CPU's.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rpat_cli.data.augment import Augment, check_setting, compose, crop_at, random_flip
from rpat_cli.errors import ConfigError, Problem, unknown

TRIES = 10
"""Boxes that are drawn until one fits into the image."""


def cropshift(
    image_size: int,
    low: Annotated[int, Field(description="rows and columns removed at least, together")] = 0,
    high: Annotated[int, Field(description="rows and columns removed at most, together")] = 10,
) -> Augment:
    """Remove `low` to `high` rows and columns together at the borders, and put what is left
    anywhere onto black."""
    check_setting(0 <= low <= high < image_size, "high", high, f"must be {low} to {image_size - 1}")

    def augment(x: Tensor) -> Tensor:
        lines = torch.randint(low, high + 1, (len(x),), device=x.device)
        columns = _up_to(lines)
        rows = lines - columns
        left, upper, to_left, to_upper = map(_up_to, (columns, rows, columns, rows))
        shifted = crop_at(x, high + upper - to_upper, high + left - to_left, high)
        kept_rows = _within(x.shape[-2], to_upper, x.shape[-2] - rows).unsqueeze(2)
        kept_columns = _within(x.shape[-1], to_left, x.shape[-1] - columns).unsqueeze(1)
        return shifted.masked_fill(~(kept_rows & kept_columns).unsqueeze(1), 0)

    return augment


def erasing(
    image_size: int,  # noqa: ARG001  (all factories share this signature)
    p: Annotated[float, Field(description="probability that a rectangle is erased")] = 0.5,
    min_area: Annotated[float, Field(description="its smallest share of the image's area")] = 0.02,
    max_area: Annotated[float, Field(description="its largest share of the image's area")] = 0.33,
) -> Augment:
    """Black out a random rectangle with probability `p` (Zhong et al., AAAI 2020, arXiv
    1708.04896): `min_area` to `max_area` of the image, its height 0.3 to 3.3 times its width."""
    check_setting(0 <= p <= 1, "p", p, "must be a probability, 0 to 1")
    check_setting(0 < min_area <= 1, "min_area", min_area, "must be a share, above 0 to 1")
    check_setting(
        min_area <= max_area <= 1, "max_area", max_area, f"must be a share, {min_area} to 1"
    )

    def augment(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tries = (len(x), TRIES)
        share = min_area + (max_area - min_area) * torch.rand(tries, device=x.device)
        low, high = math.log(0.3), math.log(3.3)
        ratio = (low + (high - low) * torch.rand(tries, device=x.device)).exp()
        rows = (height * width * share * ratio).sqrt().round().long()
        columns = (height * width * share / ratio).sqrt().round().long()
        fits = (rows < height) & (columns < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        rows, columns = (each.gather(1, first).squeeze(1) for each in (rows, columns))
        erased = fits.any(dim=1) & (torch.rand(len(x), device=x.device) < p)
        upper = _up_to((height - rows).clamp_min(0))
        left = _up_to((width - columns).clamp_min(0))
        in_rows = _within(height, upper, rows).unsqueeze(2)
        in_columns = _within(width, left, columns).unsqueeze(1)
        box = in_rows & in_columns & erased.view(-1, 1, 1)
        return x.masked_fill(box.unsqueeze(1), 0)

    return augment


COLOR = ("color", "brightness", "contrast", "sharpness", "autocontrast", "equalize")
PROBABILITIES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "color": {**dict.fromkeys(COLOR, 0.125), "shear": 0.125, "rotate": 0.125},
        "shape": {
            **dict.fromkeys(COLOR, 0.08),
            **{"contrast": 0.04, "autocontrast": 0.04, "shear": 0.3, "rotate": 0.3},
        },
    }
)
FACTORS = MappingProxyType(
    {
        "color": (0.1, 1.9),
        "brightness": (0.5, 1.9),
        "contrast": (0.5, 1.9),
        "sharpness": (0.1, 1.9),
    }
)
LARGEST = MappingProxyType({"color": (0.15, 10), "shape": (0.35, 30)})
"""Shear, and rotation in degrees; from 0.05, and from 1 degree."""


def colorshape(
    image_size: int,  # noqa: ARG001
    bias: Annotated[
        str, Field(description="color: each change as often; shape: shear and rotation more")
    ] = "color",
) -> Augment:
    """One change per image of color, brightness, contrast, sharpness, autocontrast, equalize, shear
    or rotation; `bias` is `color`, which has each of them as often, or `shape`, which has more and
    stronger changes of the shape. Sample by sample, as `autoaugment` is."""
    if bias not in PROBABILITIES:
        raise ConfigError(Problem("bias", unknown("bias", bias, list(PROBABILITIES))))
    names = list(PROBABILITIES[bias])
    weights = torch.tensor(list(PROBABILITIES[bias].values()))

    def augment(x: Tensor) -> Tensor:
        chosen = torch.multinomial(weights, len(x), replacement=True).tolist() if len(x) else []
        changed = [_changed(image, names[k], bias) for image, k in zip(x, chosen, strict=True)]
        return torch.stack(changed) if changed else x

    return augment


def _changed(image: Tensor, name: str, bias: str) -> Tensor:
    """One image (C, H, W); its result in 256 levels, as of the images that it was defined on."""
    from torchvision.transforms.v2 import functional as F

    pixels = (image * 255).round().to(torch.uint8)
    sign = 1 if torch.rand(()) < 0.5 else -1
    shear, angle = LARGEST[bias]
    if name in FACTORS:
        change = {"color": "saturation"}.get(name, name)
        found = getattr(F, f"adjust_{change}")(pixels, _between(*FACTORS[name]))
    elif name == "shear":
        degrees = sign * math.degrees(_between(0.05, shear))
        both = [degrees, 0.0] if torch.rand(()) < 0.5 else [0.0, degrees]
        found = F.affine(pixels, angle=0, translate=[0, 0], scale=1, shear=both)
    elif name == "rotate":
        found = F.rotate(pixels, sign * int(torch.randint(1, angle + 1, ())))
    else:
        found = getattr(F, name)(pixels)
    unit: Tensor = found.to(image.dtype) / 255
    return unit


VERSIONS = MappingProxyType(
    {
        "weak": (10, "color", 0.5, 0.33),
        "strong": (10, "color", 1.0, 0.33),
        "svhn": (8, "shape", 1.0, 0.5),
    }
)


def idbh(
    image_size: int,
    version: Annotated[
        str, Field(description="the authors' settings: weak or strong (CIFAR), svhn")
    ] = "strong",
) -> Augment:
    """Flip, CropShift, a change of color or shape, random erasing, as the authors set them: `weak`
    and `strong` for CIFAR, `svhn`."""
    if version not in VERSIONS:
        raise ConfigError(Problem("version", unknown("version", version, list(VERSIONS))))
    lines, bias, p, largest = VERSIONS[version]
    return compose(
        random_flip(image_size),
        cropshift(image_size, 0, lines),
        colorshape(image_size, bias),
        erasing(image_size, p, max_area=largest),
    )


def _up_to(most: Tensor) -> Tensor:
    """A whole number from 0 to each of `most` (B,) int64."""
    return (torch.rand(len(most), device=most.device) * (most + 1)).long().minimum(most)


def _within(length: int, first: Tensor, size: Tensor) -> Tensor:
    """Which of `length` positions are among the `size` (B,) from `first` (B,) on: (B, length)."""
    position = torch.arange(length, device=first.device)
    return (position >= first[:, None]) & (position < (first + size)[:, None])


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
