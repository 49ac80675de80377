"""The expected calibration error against figures that can be worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rpat_cli.evaluation.calibration import Bin, Calibration


def calibration(*images: tuple[float, bool], bins: int = 15) -> Calibration:
    confidence, right = zip(*images, strict=True)
    return Calibration.of(torch.tensor(confidence, dtype=torch.float64), torch.tensor(right), bins)


def test_one_bin_is_the_distance_between_accuracy_and_confidence() -> None:
    found = calibration((0.96, True), (0.98, True), (0.97, False), (0.97, True))
    assert [(part.n, part.accuracy) for part in found.bins] == [(4, 0.75)]
    assert found.ece == pytest.approx(0.97 - 0.75)


def test_bins_weigh_by_their_images_and_do_not_cancel_out() -> None:
    # Three images of confidence 0.5 and accuracy 1, one of confidence 0.9 and accuracy 0: signed,
    # they would cancel.
    found = calibration(*[(0.5, True)] * 3, (0.9, False))
    assert found.ece == pytest.approx(0.75 * 0.5 + 0.25 * 0.9)


def test_a_model_right_as_often_as_it_is_confident_has_no_error() -> None:
    found = calibration(
        *[(0.75, True)] * 3, (0.75, False), *[(0.25, False)] * 3, (0.25, True), (1.0, True)
    )
    assert found.ece == pytest.approx(0)


def test_an_edge_belongs_to_the_bin_below_it_and_empty_bins_are_left_out() -> None:
    found = calibration((0.0, False), (0.5, True), (0.51, True), (1.0, False), bins=2)
    assert found.bins == (Bin(0.0, 0.5, 2, 0.25, 0.5), Bin(0.5, 1.0, 2, 0.755, 0.5))
    assert [(part.low, part.n) for part in calibration((0.95, True)).bins] == [
        (pytest.approx(14 / 15), 1)
    ]
    assert Calibration.of(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).ece == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_no_image_is_lost_and_one_bin_is_the_least_error(images: list[tuple[float, bool]]) -> None:
    found = calibration(*images)
    assert found.n == len(images)
    # By the triangle inequality: merging bins can only let errors cancel.
    assert calibration(*images, bins=1).ece - 1e-9 <= found.ece <= 1
    assert all(
        part.low <= part.confidence + 1e-9 and part.confidence <= part.high + 1e-9
        for part in found.bins
    )


def test_it_reads_single_precision_without_losing_the_top_bin() -> None:
    found = Calibration.of(torch.ones(7), torch.ones(7, dtype=torch.bool))
    assert [(part.n, part.confidence) for part in found.bins] == [(7, 1.0)]
    assert found.to_dict()["ece"] == 0
