"""Augmentations against slow loops, and what must hold of every one of them."""

import pytest
import torch

from rpat_cli.data import AUGMENTATIONS
from rpat_cli.data.augment import build_augment, crop_at
from rpat_cli.errors import ConfigError


@pytest.mark.parametrize("shape", [(7, 3, 32, 32), (5, 1, 28, 28), (4, 3, 20, 12)])
def test_crop_is_that_of_a_loop(shape):
    x, padding = torch.rand(shape), 3
    rows, columns = torch.randint(7, (2, shape[0]))
    expected = torch.zeros_like(x)
    for i in range(shape[0]):
        for h in range(shape[2]):
            for w in range(shape[3]):
                source_h, source_w = h + int(rows[i]) - padding, w + int(columns[i]) - padding
                if 0 <= source_h < shape[2] and 0 <= source_w < shape[3]:
                    expected[i, :, h, w] = x[i, :, source_h, source_w]
    assert torch.equal(crop_at(x, rows, columns, padding), expected)
    assert torch.equal(crop_at(x, torch.full_like(rows, 3), torch.full_like(rows, 3), 3), x)


def test_crop_offsets_are_uniform_and_independent():
    """A single bright pixel in the centre shows the offset drawn for each of the samples."""
    count = 20000
    x = torch.zeros(count, 1, 9, 9)
    x[:, :, 4, 4] = 1
    torch.manual_seed(0)
    at = build_augment("crop:padding=2", 9)(x).flatten(1).argmax(1)
    cells = torch.stack([(at // 9), (at % 9)], 1) - 2
    table = torch.zeros(5, 5)
    for row, column in cells.tolist():
        table[row, column] += 1
    chi2 = float(((table - count / 25) ** 2 / (count / 25)).sum())
    assert chi2 < 51.2  # 99.9th percentile for 24 degrees of freedom


def test_flip_mirrors_each_sample_by_its_own_draw():
    x = torch.rand(4000, 1, 2, 6)
    torch.manual_seed(0)
    out = build_augment("flip", 6)(x)
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert abs(mirrored.float().mean() - 0.5) < 0.03
    assert torch.equal(build_augment("flip:p=0", 6)(x), x)
    assert torch.equal(build_augment("flip:p=1", 6)(x), x.flip(-1))


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_blacks_out_one_clipped_square(side):
    torch.manual_seed(0)
    black = (build_augment(f"cutout:size={side}", 10)(torch.ones(500, 3, 10, 10)) == 0).all(1)
    assert bool(black.flatten(1).any(1).all())
    heights, widths = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.flatten(1).sum(1), heights * widths)  # a full rectangle
    assert int(heights.max()) == side
    assert int(widths.max()) == side
    if side == 1:  # every pixel can be the centre
        assert bool(black.any(0).all())


def test_cutout_is_half_the_image_by_default():
    torch.manual_seed(0)
    black = build_augment("cutout", 32)(torch.ones(200, 1, 32, 32)) == 0
    assert int(black.any(3).sum(2).max()) == 16


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "spec", [*AUGMENTATIONS, "autoaugment:policy=svhn", "autoaugment:policy=imagenet"]
)
def test_every_augmentation(spec, channels):
    """Shape, range, input untouched, reproducible from the generator's state, its own draw for
    every sample."""
    augment = build_augment(spec, 16)
    x = torch.rand(1, channels, 16, 16).repeat(24, 1, 1, 1)
    before = x.clone()
    torch.manual_seed(5)
    first = augment(x)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert first.min() >= 0
    assert first.max() <= 1
    assert len(first.flatten(1).unique(dim=0)) >= 2
    assert not torch.equal(augment(x), first)
    torch.manual_seed(5)
    assert torch.equal(augment(x), first)
    assert augment(x[:0]).shape == x[:0].shape


def test_augmentations_follow_one_another():
    x = torch.rand(6, 3, 8, 8)
    torch.manual_seed(1)
    together = build_augment(["crop-flip", {"cutout": {"size": 2}}], 8)(x)
    torch.manual_seed(1)
    expected = build_augment("cutout:size=2", 8)(
        build_augment("flip", 8)(build_augment({"crop": None}, 8)(x))
    )
    assert torch.equal(together, expected)
    assert torch.equal(build_augment([], 8)(x), x)


def test_randaugment_without_operations_changes_nothing_but_rounding():
    x = torch.randint(256, (4, 3, 8, 8)).float() / 255
    assert torch.equal(build_augment("randaugment:n=0,m=9", 8)(x), x)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("crop-flop", "Did you mean 'crop-flip'"),
        ("cutout:sise=3", "Did you mean 'size'"),
        ("cutout:size=0", "at least 1"),
        ("cutout:size=big", "'big' is not of type int"),
        ("cutout:size=1.5", "1.5 is not of type int"),
        ("crop:padding=-1", "0 to 32 pixels"),
        ("flip:p=2", "probability"),
        ("randaugment:m=31", "0 to 30"),
        ("randaugment:n=-1", "0 or more"),
        ("autoaugment:policy=cifar", "Allowed: imagenet, cifar10, svhn"),
        ("crop:image_size=3", "unknown setting 'image_size'"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_augment(spec, 32)
