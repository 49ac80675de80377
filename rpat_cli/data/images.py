"""From one image file to pixels: every kind of file that Pillow opens is read as a person sees it,
or refused by its name."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from rpat_cli.data.base import Shape
from rpat_cli.errors import DataError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each orientation upright."""

SIDEWAYS = frozenset(TURNS[orientation] for orientation in (5, 6, 7, 8))
"""Those that swap width and height."""


@dataclass(frozen=True)
class Form:
    """What image files of any size are made into.

    `center_crop`: the share of the resized image's side that the crop at the center keeps. With 1
    it is the largest cut of the right shape. ImageNet's 224 of 256 pixels are 0.875.
    """

    height: int
    width: int
    channels: int = 3
    center_crop: float = 1.0
    interpolation: str = "bilinear"

    @property
    def shape(self) -> Shape:
        return self.channels, self.height, self.width

    @property
    def resized(self) -> tuple[int, int]:
        """The smallest height and width before the crop."""
        return round(self.height / self.center_crop), round(self.width / self.center_crop)


Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the latter two are outside."""


@dataclass(frozen=True)
class RandomCrop:
    """A random part of an image, resized to the form: `scale` is the smallest and largest share of
    the area, `ratio` that of width to height (Szegedy et al., CVPR 2015, arXiv 1409.4842, with the
    defaults of today's ImageNet training)."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, random: Random) -> Box:
        """Of an image of that size. Ten draws that don't fit into it make the largest box at the
        center whose ratio is allowed."""
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(*map(math.log, self.ratio)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = int(random.random() * (width - w + 1))
                upper = int(random.random() * (height - h + 1))
                return left, upper, left + w, upper + h
        low, high = self.ratio
        w = min(width, max(1, round(height * high)))
        h = min(height, max(1, round(width / low)))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h


@dataclass(frozen=True)
class EpochCrops:
    """The random crops of one epoch. Each follows from seed, epoch and the image's number alone, so
    neither the number of workers nor an interruption changes it."""

    crop: RandomCrop
    seed: int
    epoch: int

    def box(self, number: int, width: int, height: int) -> Box:
        return self.crop.box(width, height, Random(f"{self.seed}/{self.epoch}/{number}"))


BoxOf = Callable[[int, int], Box]
"""From the width and height of an upright image to the part of it that is wanted."""


def decode(path: Path, form: Form, box_of: BoxOf | None = None) -> Tensor:
    """One image file as (C, H, W) uint8 of that form: upright, the first frame of an animation,
    transparent parts black, 16 bits scaled to 8; resized, then cropped at the center, or a part of
    it resized.

    Raises `DataError`, naming the file, if it is no image, a damaged one, or of pixels whose range
    is not known.
    """
    if not path.is_file():  # a pipe would be waited for without end
        raise _unreadable(path, "it is not there, or is no regular file")
    try:
        # No warnings of Pillow's: what matters is refused.
        with warnings.catch_warnings(action="ignore"), _whole_only(), Image.open(path) as image:
            if box_of is not None:
                box_of = _with_draft(image, form, box_of)
            elif form.center_crop == 1:
                # Lets the JPEG decoder skip detail that the resize would throw away.
                side = max(form.height, form.width)
                image.draft("RGB", (side, side))
            return shaped(image, form, box_of)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise _unreadable(path, reason) from error


def shaped(image: Image.Image, form: Form, box_of: BoxOf | None = None) -> Tensor:
    """An image of Pillow as `decode` makes it. Raises `ValueError` for pixels whose range is not
    known."""
    image.load()  # first: some of Pillow's readers turn the image here
    turn = _turn(image)
    pixels = _in_color(_eight_bits(image), "L" if form.channels == 1 else "RGB")
    upright = pixels if turn is None else pixels.transpose(turn)
    array = np.array(_cut(upright, form) if box_of is None else _part(upright, form, box_of))
    return (
        torch.from_numpy(array.reshape(form.height, form.width, form.channels))
        .permute(2, 0, 1)
        .contiguous()
    )


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot read the image {printable(path)}: {reason}. Replace or remove this file."
    )


def printable(name: str | os.PathLike[str]) -> str:
    """A file name as text that can be written anywhere: bytes that are no UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def _whole_only() -> Iterator[None]:
    """Inside, a truncated file is an error, whatever the caller of rpat allows elsewhere: Pillow
    would fill in what is missing."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _turn(image: Image.Image) -> Image.Transpose | None:
    with suppress(Exception):  # a damaged EXIF block does not make the image unreadable
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image itself, but 16 bits as 8: Pillow's own conversion cuts everything above 255 off,
    which leaves white."""
    # Older versions of Pillow open 16-bit files of these formats as 32-bit integers.
    is_short = image.mode.startswith("I;16")
    is_short = is_short or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if is_short:
        values: Any = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(
            f"its pixels are {kind}, whose range is not known; save it with 8 or 16 bits"
        )
    return image


def _in_color(image: Image.Image, mode: str) -> Image.Image:
    """The image in that mode, "RGB" or "L"; what is transparent shows black behind it, not the
    colors that happen to be hidden there."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # Pillow makes RGBA of the premultiplied gray mode in two steps only.
        layered = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        behind = Image.new("RGBA", layered.size, (0, 0, 0, 255))
        image = Image.alpha_composite(behind, layered)
    if mode == "L" and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _with_draft(image: Image.Image, form: Form, box_of: BoxOf) -> BoxOf:
    """Lets the JPEG decoder skip detail that resizing the box would throw away; the box in the
    image that is decoded then."""
    if image.format != "JPEG":
        return box_of
    turned = TURNS.get(image.getexif().get(ORIENTATION, 1)) in SIDEWAYS
    width, height = image.size[::-1] if turned else image.size
    left, upper, right, lower = box_of(width, height)
    shrink = min((right - left) / form.width, (lower - upper) / form.height)
    if shrink >= 2:
        image.draft("RGB", (int(image.width / shrink), int(image.height / shrink)))

    def within(now_wide: int, now_high: int) -> Box:
        x, y = now_wide / width, now_high / height
        first = min(int(left * x), now_wide - 1), min(int(upper * y), now_high - 1)
        last = max(first[0] + 1, round(right * x)), max(first[1] + 1, round(lower * y))
        return *first, *last

    return within


def _part(image: Image.Image, form: Form, box_of: BoxOf) -> Image.Image:
    part = image.crop(box_of(*image.size))
    return part.resize((form.width, form.height), RESAMPLING[form.interpolation])


def _cut(image: Image.Image, form: Form) -> Image.Image:
    resampling = RESAMPLING[form.interpolation]
    if form.center_crop == 1:
        return ImageOps.fit(image, (form.width, form.height), resampling)
    # As torchvision's Resize and CenterCrop, and so timm's, round.
    low, narrow = form.resized
    if low * image.width >= narrow * image.height:
        size = (max(narrow, int(low * image.width / image.height)), low)
    else:
        size = (narrow, max(low, int(narrow * image.height / image.width)))
    left = round((size[0] - form.width) / 2)
    top = round((size[1] - form.height) / 2)
    resized = image.resize(size, resampling)
    return resized.crop((left, top, left + form.width, top + form.height))
