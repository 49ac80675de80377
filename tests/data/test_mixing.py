"""Mixed images and labels: shares that agree, views that agree, and the distributions they
promise."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rpat_cli.data import MIXINGS
from rpat_cli.data.mixing import CutMix, MixUp, SoftLabels

CLASSES = 5


def constant_images(count: int = 64, size: int = 16) -> tuple[Tensor, Tensor]:
    """Image i is i / count everywhere, so that every pixel tells which image it came from; its
    class is i % 5."""
    values = torch.arange(count) / count
    return values.view(-1, 1, 1, 1).expand(count, 3, size, size).clone(), torch.arange(
        count
    ) % CLASSES


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", MIXINGS)
def test_labels_are_probabilities_in_the_shares_of_the_images(name: str, smoothing: float) -> None:
    x, y = constant_images()
    mixed, soft = SoftLabels(CLASSES, smoothing, MIXINGS[name]())(x, y)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(len(y)))
    assert soft.min() >= smoothing / CLASSES - 1e-6
    for image, label, original, own in zip(mixed, soft, x, y, strict=True):
        if name == "cutmix":
            pasted = image[0] != original[0]
            values = image[0][pasted].unique()
            assert len(values) <= 1  # one partner
            partner = int((values[0] * len(y)).round()) % CLASSES if len(values) else own
            share = 1 - pasted.float().mean()
            rows, columns = pasted.any(dim=1), pasted.any(dim=0)
            assert pasted.sum() == rows.sum() * columns.sum()  # one box
            expected = torch.zeros(CLASSES)
            expected[own] += share
            expected[partner] += 1 - share
            torch.testing.assert_close(label, expected * (1 - smoothing) + smoothing / CLASSES)
        assert image.shape == original.shape


def test_mixup_puts_image_and_label_at_the_same_point_between_two() -> None:
    y = torch.tensor([0, 1])
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    for _ in range(10):
        mixed, soft = SoftLabels(2, 0.0, MixUp())(x, y)
        torch.testing.assert_close(mixed, soft[:, 1].view(2, 1, 1, 1).expand_as(mixed))


@pytest.mark.parametrize("name", MIXINGS)
def test_both_views_meet_the_same_partner_in_the_same_share(name: str) -> None:
    x, y = constant_images()
    mixed, soft = SoftLabels(CLASSES, 0.0, MIXINGS[name]())(torch.cat([x, x + 2]), y, 2)
    torch.testing.assert_close(mixed[: len(y)] + 2, mixed[len(y) :])
    assert soft.shape == (len(y), CLASSES)
    assert (mixed[: len(y)] != x).any()


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_so_many_samples_are_mixed_as_asked(name: str, probability: float) -> None:
    x, y = constant_images(2000, 8)
    mixed, soft = SoftLabels(CLASSES, 0.0, MIXINGS[name](probability=probability))(x, y)
    changed = (mixed != x).flatten(1).any(dim=1).float().mean().item()
    # CutMix: a share near 1 leaves no pixel of a partner
    assert changed == pytest.approx(probability, abs=0.05)
    if probability == 0:
        assert soft.max(dim=1).values.eq(1).all()


@pytest.mark.parametrize(("mixing", "mean"), [(MixUp(), 0.5), (MixUp(alpha=50.0), 0.5)])
def test_shares_are_those_of_a_beta_distribution(mixing: Any, mean: float) -> None:
    y = torch.arange(4000) % 2
    _, soft = SoftLabels(2, 0.0, mixing)(torch.zeros(4000, 1, 1, 1), y)
    different = soft[soft.max(dim=1).values < 1][:, 0]
    assert different.mean().item() == pytest.approx(mean, abs=0.02)
    # Beta(a, a) has variance 1 / (4 (2a + 1))
    assert different.var().item() == pytest.approx(1 / (4 * (2 * mixing.alpha + 1)), rel=0.1)


def test_smoothing_alone_leaves_images_as_they_are() -> None:
    x, y = constant_images()
    same, soft = SoftLabels(CLASSES, 0.2)(x, y)
    assert same is x
    assert soft[0].tolist() == pytest.approx([0.84, 0.04, 0.04, 0.04, 0.04])
    assert torch.equal(soft.argmax(dim=1), y)


def test_the_seed_decides() -> None:
    x, y = constant_images()
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(SoftLabels(CLASSES, 0.0, CutMix())(x, y))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
