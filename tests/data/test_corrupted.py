"""Files of the published form are read image by image, and files of any other form are turned down
with a reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from corrupted_files import CLASSES, write_corrupted

from rpat_cli.data.corrupted import EXTRA, STANDARD, open_corrupted
from rpat_cli.errors import DataError

LABELS = np.arange(40) % CLASSES
TEST = torch.from_numpy(LABELS)
SHAPE = (1, 4, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corrupted(tmp_path / "C", (*STANDARD, *EXTRA), LABELS, lambda name, severity: 0)


def mark(folder: Path, name: str) -> None:
    """Number the images of a corruption in the order of the file, over all severities."""
    number = np.arange(5 * len(LABELS), dtype=np.uint8).reshape(-1, 1, 1, 1)
    np.save(folder / f"{name}.npy", np.broadcast_to(number, (len(number), 4, 4, 1)))


def test_there_are_fifteen_and_four() -> None:
    assert (len(set(STANDARD)), len(set(EXTRA)), set(STANDARD) & set(EXTRA)) == (15, 4, set())


def test_a_severity_is_a_fifth_of_the_file(folder: Path) -> None:
    mark(folder, "fog")
    images = open_corrupted(folder, shape=SHAPE, test_labels=TEST, classes=CLASSES)
    assert images.names == (*STANDARD, *EXTRA)
    for severity in range(1, 6):
        split = images.read("fog", severity)
        assert split.shape == SHAPE
        assert split.images[:, 0, 0, 0].tolist() == list(range(40 * (severity - 1), 40 * severity))
        assert split.labels.tolist() == LABELS.tolist()


def test_a_limit_takes_the_same_images_of_every_severity_and_class(folder: Path) -> None:
    mark(folder, "fog")
    images = open_corrupted(folder, shape=SHAPE, test_labels=TEST, classes=CLASSES, limit=20)
    assert torch.bincount(images.labels).tolist() == [2] * CLASSES
    first = images.read("fog", 1).images[:, 0, 0, 0].long()
    assert torch.equal(TEST[first], images.labels)
    assert torch.equal(images.read("fog", 4).images[:, 0, 0, 0].long(), first + 3 * 40)
    whole = open_corrupted(folder, shape=SHAPE, test_labels=TEST, classes=CLASSES, limit=500)
    assert len(whole.labels) == 40
    assert whole.fingerprint() != images.fingerprint()


def test_extra_corruptions_may_be_missing(folder: Path) -> None:
    (folder / "spatter.npy").unlink()
    images = open_corrupted(folder, shape=SHAPE, test_labels=TEST, classes=CLASSES)
    assert len(images.names) == 18
    assert "spatter" not in images.names


def _without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / f"{name}.npy").unlink()

    return spoil


def _fog(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "fog.npy", array)


def _labels(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "labels.npy", array)


def _truncate(folder: Path) -> None:
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:300])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _without("fog", "labels"),
            r"lacks fog.npy, labels.npy; it has only: gaussian_noise, shot_noise",
        ),
        (
            _without(*STANDARD, *EXTRA),
            r"lacks gaussian_noise.npy.*no corruption at all.*unpacked",
        ),
        (_truncate, r"cannot read .*fog.npy"),
        (
            _fog(np.zeros((200, 4, 4, 1))),
            r"fog.npy holds float64.*expected uint8 of shape \(200, 4, 4, 1\)",
        ),
        (
            _fog(np.zeros((40, 4, 4, 1), np.uint8)),
            r"fog.npy holds uint8 of shape \(40, 4, 4, 1\); expected uint8",
        ),
        (
            _fog(np.zeros((200, 6, 6, 3), np.uint8)),
            r"\(6, 6, 3\), the model takes \(4, 4, 1\).*was trained on",
        ),
        (_labels(np.arange(7)), r"labels.npy holds int64 of shape \(7,\); expected integers"),
        (_labels(np.zeros((40, 5), np.int64)), r"labels.npy holds int64 of shape \(40, 5\)"),
        (_labels(np.arange(200) % 7), r"five severities have different labels"),
        (_labels(np.tile(np.arange(40), 5)), r"labels from 0 to 39, the model has 10 classes"),
        (
            _labels(np.tile(np.zeros(40, np.int64), 5)),
            r"does not belong to the model's test set: it has 40 images of class 0",
        ),
        (
            _labels(np.tile(LABELS[:20], 5)),
            r"gaussian_noise.npy.*expected uint8 of shape \(100, 4, 4, 1\)",
        ),
    ],
)
def test_files_of_another_form_are_named_with_what_is_wrong(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message):
        open_corrupted(folder, shape=SHAPE, test_labels=TEST, classes=CLASSES)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent lacks"):
        open_corrupted(tmp_path / "absent", shape=SHAPE, test_labels=TEST, classes=CLASSES)
