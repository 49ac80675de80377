"""Errors on images whose every answer is known: by severity, on average, and against a baseline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from corrupted_files import CLASSES, write_corrupted
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.data.corrupted import EXTRA, STANDARD, CorruptedImages, open_corrupted
from rpat_cli.diagnostics.corruptions import Baseline, Corruptions, measure_corruptions
from rpat_cli.errors import DataError

LABELS = np.arange(40) % CLASSES


class Reader(nn.Module):
    """Believes the first pixel, which is the number of a class."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)  # would change if the model were left in training mode

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x)
        return F.one_hot((255 * x[:, 0, 0, 0]).round().long(), CLASSES).float()


class AlwaysZero(nn.Module):
    """Is wrong on nine classes of ten."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(torch.zeros(len(x), dtype=torch.int64), CLASSES).float()


def wrong(name: str, severity: int) -> int:
    """Classes that are wrong: 1 to 5 by severity for the standard ones, of fog all but one; 2 for
    the extra ones."""
    return 9 if name == "fog" else severity if name in STANDARD else 2


def images(
    folder: Path, limit: int | None = None, names: tuple[str, ...] = (*STANDARD, *EXTRA)
) -> CorruptedImages:
    write_corrupted(folder, names, LABELS, wrong)
    return open_corrupted(
        folder, shape=(1, 4, 4), test_labels=torch.from_numpy(LABELS), classes=CLASSES, limit=limit
    )


@pytest.mark.parametrize("limit", [None, 10, 30])
def test_every_error_is_known(tmp_path: Path, limit: int | None) -> None:
    """A limit takes the same share of every class, so that here it changes no error."""
    model = Reader().train()
    before, said = snapshot(model), []
    found = measure_corruptions(model, images(tmp_path / "C", limit), batch_size=7, say=said.append)
    assert_same(before, snapshot(model))
    assert found.n == (limit or 40)
    errors = {each.name: each.errors for each in found.corruptions}
    assert errors["snow"] == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert errors["fog"] == pytest.approx((0.9,) * 5)
    assert errors["spatter"] == pytest.approx((0.2,) * 5)
    assert found.mean_error == pytest.approx((14 * 0.3 + 0.9) / 15)
    assert found.extra_mean_error == pytest.approx(0.2)
    assert (found.baseline, found.mce) == (None, None)
    assert len(said) == 19
    assert said[0] == "1/19  gaussian_noise  mean error 30.00 %"


def test_mce_is_the_mean_of_ratios_of_sums_over_the_fifteen(tmp_path: Path) -> None:
    """Against 90 % at every severity: 1.5 / 4.5 for fourteen corruptions, 1 for fog, none of the
    extra ones in it."""
    corrupted = images(tmp_path / "C")
    other = measure_corruptions(AlwaysZero(), corrupted)
    assert other.mean_error == pytest.approx(0.9)
    baseline = Baseline.from_dict("zero", json.loads(json.dumps(other.to_dict())))
    found = measure_corruptions(Reader(), corrupted, baseline=baseline)
    ce = {each.name: each.ce for each in found.corruptions}
    assert ce["snow"] == pytest.approx(1.5 / 4.5)
    assert ce["fog"] == pytest.approx(1.0)
    assert ce["saturate"] == pytest.approx(1.0 / 4.5)
    assert found.mce == pytest.approx((14 / 3 + 1) / 15)
    assert found.baseline == "zero"
    itself = Baseline.from_dict("itself", found.to_dict())
    assert measure_corruptions(Reader(), corrupted, baseline=itself).mce == pytest.approx(1.0)


def test_the_json_has_all_of_it_with_the_groups_apart(tmp_path: Path) -> None:
    found = measure_corruptions(Reader(), images(tmp_path / "C"))
    record = json.loads(json.dumps(found.to_dict()))
    groups = [each["group"] for each in record["corruptions"]]
    assert (groups.count("standard"), groups.count("extra")) == (15, 4)
    assert [each["name"] for each in record["corruptions"]] == [*STANDARD, *EXTRA]
    assert record["corruptions"][0]["mean_error"] == pytest.approx(0.3)
    assert record["mean_error"] == found.mean_error


def test_the_mean_of_the_extra_ones_is_of_all_four_or_none(tmp_path: Path) -> None:
    found = measure_corruptions(Reader(), images(tmp_path / "C", names=(*STANDARD, "saturate")))
    assert found.mean_error == pytest.approx((14 * 0.3 + 0.9) / 15)
    assert len(found.extra) == 1
    assert found.extra_mean_error is None


@pytest.fixture
def measured(tmp_path: Path) -> Corruptions:
    return measure_corruptions(AlwaysZero(), images(tmp_path / "C"))


def test_a_baseline_of_other_images_is_no_baseline(tmp_path: Path, measured: Corruptions) -> None:
    baseline = Baseline.from_dict("zero", measured.to_dict())
    with pytest.raises(
        DataError, match="zero was measured on other images than the 10 of each severity.*--limit"
    ):
        measure_corruptions(Reader(), images(tmp_path / "C", limit=10), baseline=baseline)


def test_so_is_one_of_other_pixels_under_the_same_labels(tmp_path: Path) -> None:
    first = images(tmp_path / "C", limit=10)
    record = measure_corruptions(Reader(), first).to_dict()
    assert record["pixels"] == first.pixels()
    Baseline.from_dict("zero", record).check(first)
    fog = np.load(tmp_path / "C" / "fog.npy")
    fog[int(first.chosen[0]), 0, 0, 0] ^= 1
    np.save(tmp_path / "C" / "fog.npy", fog)
    with pytest.raises(DataError, match="measured on other images"):
        Baseline.from_dict("zero", record).check(first)
    before = {key: value for key, value in record.items() if key != "pixels"}
    Baseline.from_dict("zero", before).check(first)  # of a version that did not compare them


def test_a_baseline_has_to_have_errors_to_divide_by(measured: Corruptions) -> None:
    record = measured.to_dict()
    with pytest.raises(DataError, match="does not hold errors"):
        Baseline.from_dict("zero", {"labels": "", "corruptions": {"fog": 0.3}})
    with pytest.raises(DataError, match="has no errors at five severities of: gaussian_noise."):
        Baseline.from_dict("zero", {**record, "corruptions": record["corruptions"][1:]})
    record["corruptions"][3]["errors"] = [0.0] * 5
    with pytest.raises(DataError, match="makes no error on defocus_blur"):
        Baseline.from_dict("zero", record)
