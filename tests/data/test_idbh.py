"""CropShift, random erasing and the changes of color and shape: what is drawn, and what comes of
it."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from rpat_cli.data import AUGMENTATIONS
from rpat_cli.data.augment import build_augment
from rpat_cli.data.idbh import PROBABILITIES
from rpat_cli.errors import ConfigError


def numbered(count, height, width):
    """Every pixel has a number of its own, above 0, in [0, 1]."""
    image = (1 + torch.arange(height * width)).view(1, 1, height, width) / (height * width)
    return image.expand(count, -1, -1, -1)


def test_cropshift_moves_a_part_of_the_image_onto_black():
    torch.manual_seed(0)
    height, width = 9, 12
    found = build_augment("cropshift:low=2,high=5", 12)(numbered(2000, height, width))
    removed, moves = set(), set()
    for image in (found[:, 0] * height * width).round().long():
        rows, columns = image.nonzero().unbind(1)
        part = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (part > 0).all()
        top, left = divmod(int(part[0, 0]) - 1, width)
        wanted = numbered(1, height, width)[0, 0] * height * width
        wanted = wanted[top : top + len(part), left : left + part.shape[1]]
        assert torch.equal(part, wanted.round().long())
        lines = height - len(part) + width - part.shape[1]
        assert 2 <= lines <= 5
        removed.add((height - len(part), width - part.shape[1]))
        moves.add((int(rows.min()) - top, int(columns.min()) - left))
    assert removed == {(r, lines - r) for lines in range(2, 6) for r in range(lines + 1)}
    assert {(5, 0), (-5, 0), (0, 5), (0, -5), (0, 0)} <= moves


def test_erasing_blacks_out_rectangles_of_the_shares_and_ratios_asked_for():
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 40, 50)
    black = (build_augment("erasing:p=0.75,min_area=0.1,max_area=0.2", 50)(x) == 0).all(1)
    erased = black.flatten(1).any(1)
    assert 0.72 < float(erased.float().mean()) < 0.78
    heights, widths = black.any(2).sum(1)[erased], black.any(1).sum(1)[erased]
    areas = black.flatten(1).sum(1)[erased]
    assert torch.equal(areas, heights * widths)
    share, ratio = areas / 2000, heights / widths
    assert 0.09 < float(share.min()) < 0.11 < 0.145 < float(share.mean()) < 0.155
    assert 0.19 < float(share.max()) < 0.21
    assert 0.25 < float(ratio.min()) < 0.35
    assert 2.9 < float(ratio.max()) < 3.7
    assert abs(float(ratio.log().mean())) < 0.05
    assert black.any(0).all()


def test_erasing_leaves_alone_what_no_box_fits_into():
    x = torch.ones(50, 1, 6, 6)
    assert torch.equal(build_augment("erasing:p=1,min_area=1,max_area=1", 6)(x), x)


@pytest.mark.parametrize("bias", ["color", "shape"])
def test_each_change_has_its_probability(bias):
    assert sum(PROBABILITIES[bias].values()) == pytest.approx(1)
    assert AUGMENTATIONS["colorshape"](32, bias) is not None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("autocontrast", F.autocontrast),
        ("equalize", F.equalize),
        ("brightness", lambda pixels: F.adjust_brightness(pixels, 1.9)),
        ("color", lambda pixels: F.adjust_saturation(pixels, 1.9)),
        ("rotate", lambda pixels: F.rotate(pixels, 10)),
        ("shear", lambda pixels: F.affine(pixels, 0, [0, 0], 1, [8.594367, 0.0])),
    ],
)
def test_a_change_is_torchvisions_at_its_strongest(monkeypatch, name, wanted):
    monkeypatch.setattr("rpat_cli.data.idbh._between", lambda _, high: high)
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: torch.tensor([at]))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(0.1))
    monkeypatch.setattr(torch, "randint", lambda _, high, __: torch.tensor(high - 1))
    at = list(PROBABILITIES["color"]).index(name)
    pixels = torch.arange(3 * 16 * 16).view(1, 3, 16, 16).remainder(199).to(torch.uint8)
    found = build_augment("colorshape", 16)(pixels / 255)
    assert torch.equal(found[0], wanted(pixels[0]) / 255)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cropshift:high=32", "must be 0 to 31"),
        ("cropshift:low=5,high=4", "must be 5 to 31"),
        ("erasing:p=2", "probability"),
        ("erasing:min_area=0.5", "0.5 to 1"),
        ("idbh:version=week", "Did you mean 'weak'"),
        ("colorshape:bias=tone", "Allowed: color, shape"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_augment(spec, 32)
