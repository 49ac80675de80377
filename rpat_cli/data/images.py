"""From one image file to pixels: every kind of file that Pillow opens is read as a person sees it,
or refused by its name."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
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


def decode(path: Path, form: Form) -> Tensor:
    """One image file as (C, H, W) uint8 of that form: upright, the first frame of an animation,
    transparent parts black, 16 bits scaled to 8; resized, then cropped at the center.

    Raises `DataError`, naming the file, if it is no image, a damaged one, or of pixels whose range
    is not known.
    """
    if not path.is_file():  # a pipe would be waited for without end
        raise _unreadable(path, "it is not there, or is no regular file")
    try:
        # No warnings of Pillow's: what matters is refused.
        with warnings.catch_warnings(action="ignore"), _whole_only(), Image.open(path) as image:
            if form.center_crop == 1:
                # Lets the JPEG decoder skip detail that the resize would throw away.
                side = max(form.height, form.width)
                image.draft("RGB", (side, side))
            image.load()  # first: some of Pillow's readers turn the image here
            turn = _turn(image)
            pixels = _in_color(_eight_bits(image), "L" if form.channels == 1 else "RGB")
            cut = _cut(pixels if turn is None else pixels.transpose(turn), form)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise _unreadable(path, reason) from error
    array = np.array(cut)
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
