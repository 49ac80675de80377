"""Every kind of image file is read as a person sees it, or refused by its name."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from rpat_cli.data.images import Form, decode
from rpat_cli.errors import DataError

SIDE = 16
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
"""Every value of a byte once."""


def read(path: Path, channels: int = 3) -> np.ndarray:
    """(H, W, C)"""
    return decode(path, Form(SIDE, SIDE, channels)).permute(1, 2, 0).numpy()


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path, name):
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name), gray(RAMP))
    assert np.array_equal(read(tmp_path / name, channels=1)[..., 0], RAMP)


def test_big_endian_sixteen_bits(tmp_path):
    header = f"P5 {SIDE} {SIDE} 65535\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + (RAMP * 257).astype(">u2").tobytes())
    assert np.array_equal(read(tmp_path / "a.pgm"), gray(RAMP))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused_by_name(tmp_path, dtype):
    Image.fromarray(RAMP.astype(dtype) * 3).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: its pixels are .*range is not known"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "LA", "RGBA", "CMYK", "1", "YCbCr"])
def test_every_mode_shows_its_colors(tmp_path, mode):
    black_and_white = Image.fromarray(((RAMP % 3 == 0) * 255).astype(np.uint8)).convert(mode)
    name = "a.tif" if mode in ("CMYK", "YCbCr") else "a.png"
    black_and_white.save(tmp_path / name)
    assert np.abs(read(tmp_path / name).astype(int) - gray(RAMP % 3 == 0) * 255).max() <= 1


def test_palette_colors(tmp_path):
    image = Image.fromarray((RAMP % 2).astype(np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0, 0], [10, 20, 30])
    assert np.array_equal(read(tmp_path / "a.png")[0, 1], [200, 100, 50])


@pytest.mark.parametrize("name", ["rgba.png", "la.png", "palette.png", "bytes.png", "a.gif"])
def test_what_is_transparent_is_black_not_a_hidden_color(tmp_path, name):
    """The left half is transparent, with white hidden in it."""
    left = np.arange(SIDE) < SIDE // 2
    color = np.where(left, 255, 90)
    if name in ("rgba.png", "la.png"):
        layers = [np.tile(color, (SIDE, 1))] * (3 if name == "rgba.png" else 1)
        alpha = np.tile(np.where(left, 0, 255), (SIDE, 1))
        image = Image.fromarray(np.stack([*layers, alpha], axis=2).astype(np.uint8))
        image.save(tmp_path / name)
    else:
        image = Image.fromarray(np.tile(left, (SIDE, 1)).astype(np.uint8), mode="P")
        image.putpalette([90, 90, 90, 255, 255, 255])
        image.save(tmp_path / name, transparency=b"\xff\x00" if name == "bytes.png" else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read(tmp_path / name)
    assert pixels[:, left].max() == 0
    assert np.array_equal(np.unique(pixels[:, ~left]), [90])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_photographs_are_upright(tmp_path, orientation, suffix):
    """Camera files hold the picture as the sensor saw it, and how it was held."""
    upright = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    upright[: SIDE // 2, : SIDE // 2] = (250, 0, 0)
    upright[: SIDE // 2, SIDE // 2 :] = (0, 250, 0)
    upright[SIDE // 2 :, : SIDE // 2] = (0, 0, 250)
    held = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(held)).save(path, exif=exif, quality=100)
    assert np.abs(read(path).astype(int) - upright)[2:6, 2:6].max() < 40
    assert np.abs(read(path).astype(int) - upright)[2:6, 10:14].max() < 40
    assert np.abs(read(path).astype(int) - upright)[10:14, 2:6].max() < 40


def test_damaged_exif_is_no_damaged_image(tmp_path):
    Image.fromarray(gray(RAMP).astype(np.uint8)).save(
        tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read(tmp_path / "a.png"), gray(RAMP))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ((200, 0, 0), (0, 200, 0))]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert np.abs(read(path)[5, 5].astype(int) - (200, 0, 0)).max() <= 2


FORMATS = ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "jp2", "tga"]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_images_are_whole_or_refused(tmp_path, monkeypatch, suffix, lenient):
    """Never filled up with gray, whatever the program around rpat allows Pillow elsewhere."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = tmp_path / f"a.{suffix}"
    picture = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(path)
    content, whole = path.read_bytes(), read(path)
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:length])
        try:
            assert np.array_equal(read(path), whole), length
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017  (either is right)
            assert "\n" not in str(error)  # noqa: PT017
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.heic", "a.webp"])
def test_what_is_no_image_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read the image .*{name}"):
        read(tmp_path / name)


def test_links_to_nowhere_and_pipes_are_refused(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match=f"{name}: it is not there, or is no regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize("size", [(256, 256), (417, 300), (375, 500), (1000, 257), (200, 210)])
@pytest.mark.parametrize("network", ["resnet18", "resnet50", "efficientnet_b0"])
def test_resize_and_crop_of_torchvision(tmp_path, size, network):
    """To the bit what the transforms of the trained weights make of a file."""
    from torchvision import models
    from torchvision.transforms import functional

    from rpat_cli.models.libraries import preprocessing

    pixels = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preset = models.get_model_weights(network).DEFAULT.transforms()
    resized = functional.resize(Image.fromarray(pixels), preset.resize_size, preset.interpolation)
    wanted = functional.pil_to_tensor(functional.center_crop(resized, preset.crop_size))
    own = preprocessing(f"torchvision:{network}")
    side = own["image_size"]
    form = Form(side, side, 3, own["center_crop"], own["interpolation"])
    assert torch.equal(decode(tmp_path / "a.png", form), wanted)
