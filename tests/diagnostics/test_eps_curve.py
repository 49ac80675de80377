"""On a model whose distances to the boundary are known, the whole curve is."""

import json
from typing import Any

import pytest
import torch
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.eps_curve import EpsCurve, draw, measure_eps_curve
from rpat_cli.errors import DataError


class Brightness(nn.Module):
    """Two classes by the mean pixel: an image of mean m and class 0 falls in Linf at m - 1/2."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 4 * (x.flatten(1).mean(dim=1) - 0.5)
        return torch.stack([lead, -lead], dim=1)


MEANS = torch.tensor(
    [0.52, 0.56, 0.59, 0.64, 0.69, 0.77, 0.97, 0.4]
)  # the last one is wrong from the start
X, Y = MEANS.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), torch.zeros(8, dtype=torch.int64)


def test_the_curve_is_the_distribution_of_the_distances() -> None:
    curve = measure_eps_curve(Brightness(), X, Y, Threat("Linf", 0.1), batch_size=3)
    expected = [
        7,
        6,
        6,
        5,
        4,
        3,
        2,
        1,
        1,
    ]  # of 8; distances are 0.02, 0.06, 0.09, 0.14, 0.19, 0.27, 0.47
    assert [point.accuracy.correct for point in curve.points] == expected
    assert [point.eps for point in curve.points] == pytest.approx(
        [0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4]
    )
    assert {point.accuracy.n for point in curve.points} == {8} == {curve.n}
    assert curve.missed == 0


def test_one_search_for_the_smallest_perturbations_draws_nearly_the_same_curve(honest: Any) -> None:
    pytest.importorskip("foolbox")
    pgd, fmn = (
        measure_eps_curve(honest.model, honest.x[:60], honest.y[:60], honest.threat, attack=attack)
        for attack in ("pgd", "fmn")
    )
    assert (fmn.attack, fmn.missed) == ("fmn-100", 0)
    for a, b in zip(pgd.points[:6], fmn.points[:6], strict=True):  # up to 1.5 eps
        assert abs(a.accuracy.correct - b.accuracy.correct) <= 2
    assert fmn.points[-1].accuracy.correct < fmn.points[0].accuracy.correct / 4


def test_in_l2_the_distance_is_that_of_the_whole_image() -> None:
    """16 pixels, each moved by d: 4 d. Of the multiples of 0.4 / 4 in each pixel the same curve
    comes out."""
    curve = measure_eps_curve(Brightness(), X, Y, Threat("L2", 0.4), steps=40)
    assert [point.accuracy.correct for point in curve.points] == [7, 6, 6, 5, 4, 3, 2, 1, 1]


def test_the_curve_ends_with_the_last_image_and_with_the_box() -> None:
    ends = measure_eps_curve(Brightness(), X[:2], Y[:2], Threat("Linf", 0.1))
    assert ends.points[-1].eps == pytest.approx(0.075)
    assert ends.points[-1].accuracy.correct == 0
    box = measure_eps_curve(Brightness(), X, Y, Threat("Linf", 0.6))
    assert [point.eps for point in box.points] == pytest.approx(
        [0, 0.15, 0.3, 0.45, 0.6]
    )  # all have fallen


def test_what_an_attack_misses_is_mended_and_counted() -> None:
    found = {0.1: [0], 0.2: [1, 2], 0.3: [0, 2], 0.4: [0, 1, 2, 3]}

    def broken_at(radius: float) -> Tensor:
        flags = torch.zeros(4, dtype=torch.bool)
        flags[found[radius]] = True
        return flags

    points = draw(
        [0.1, 0.2, 0.3, 0.4, 0.5], broken_at, n=5, right=4
    )  # 0.5 is not asked for: nothing is left
    assert [(point.eps, point.accuracy.correct, point.missed) for point in points] == [
        (0.0, 4, 0),
        (0.1, 3, 0),
        (0.2, 1, 1),
        (0.3, 1, 1),
        (0.4, 0, 0),
    ]


def test_it_never_rises_leaves_no_trace_and_comes_back_from_json(honest: Any) -> None:
    before = snapshot(honest.model)
    curve = measure_eps_curve(
        honest.model, honest.x[:60], honest.y[:60], honest.threat, steps=5, batch_size=25
    )
    assert_same(before, snapshot(honest.model))
    accuracies = [point.accuracy.correct for point in curve.points]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[-1]
    assert EpsCurve.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve
    again = measure_eps_curve(
        honest.model, honest.x[:60], honest.y[:60], honest.threat, steps=5, batch_size=25
    )
    assert again == curve


def test_a_model_that_is_never_right_and_no_image_at_all() -> None:
    wrong = measure_eps_curve(Brightness(), X[:3], 1 - Y[:3], Threat("Linf", 0.1))
    assert [(point.eps, point.accuracy.correct) for point in wrong.points] == [(0.0, 0)]
    with pytest.raises(DataError, match="no image"):
        measure_eps_curve(Brightness(), X[:0], Y[:0], Threat("Linf", 0.1))
