"""Further training images: read from files as people have them, refused with reasons, mixed in by
share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rpat_cli.data.extra import join, load_extra
from rpat_cli.data.images import Form
from rpat_cli.data.order import SharedOrder
from rpat_cli.data.splits import StreamSplit, TensorSplit
from rpat_cli.errors import DataError

IMAGES = np.random.RandomState(0).randint(0, 256, (6, 3, 4, 5), dtype=np.uint8)
LABELS = np.arange(6) % 3


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "extra.npz", **arrays)
    return folder / "extra.npz"


@pytest.mark.parametrize("names", [("images", "labels"), ("image", "label"), ("x", "y")])
@pytest.mark.parametrize("channels_last", [False, True])
def test_both_orders_of_axes_and_the_usual_names(
    tmp_path: Path, names: tuple[str, str], channels_last: bool
) -> None:
    images = IMAGES.transpose(0, 2, 3, 1) if channels_last else IMAGES
    path = write(tmp_path, **{names[0]: images, names[1]: LABELS.astype(np.int32)})
    split = load_extra(path, (3, 4, 5), 3)
    assert torch.equal(split.images, torch.from_numpy(IMAGES))
    assert torch.equal(split.labels, torch.from_numpy(LABELS))
    assert split.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "no array 'labels' or 'label' or 'y'; it holds: images"),
        ({"images": IMAGES / 255, "labels": LABELS}, "float64, but should be uint8"),
        (
            {"images": IMAGES[..., :4], "labels": LABELS},
            r"\(6, 3, 4, 4\), but should be \(N, 3, 4, 5\) or \(N, 4, 5, 3\)",
        ),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"\(0, 3, 4, 5\), but should be"),
        ({"images": IMAGES, "labels": LABELS + 1}, "run from 1 to 3, but should be 0 to 2"),
        ({"images": IMAGES, "labels": LABELS - 1}, "run from -1 to 1"),
        ({"images": IMAGES, "labels": np.eye(6)}, "integers of shape"),
        ({"images": IMAGES, "labels": LABELS[:4]}, "6 images but 4 labels"),
        ({"images": np.array([None]), "labels": LABELS}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_says_why(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        load_extra(path, (3, 4, 5), 3)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of extra images.*data\.extra\.path"):
        load_extra(tmp_path / "nothing.npz", (3, 4, 5), 3)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        load_extra(tmp_path / "text.npz", (3, 4, 5), 3)
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="single array"):
        load_extra(tmp_path / "one.npy", (3, 4, 5), 3)
    whole = write(tmp_path, images=IMAGES, labels=LABELS)
    whole.write_bytes(whole.read_bytes()[:-60])
    with pytest.raises(DataError, match="cannot be read"):
        load_extra(whole, (3, 4, 5), 3)


def test_joining_puts_the_data_set_first_and_needs_it_in_memory() -> None:
    main = TensorSplit(
        torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    )
    joined = join(main, TensorSplit(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)))
    assert len(joined) == 8
    assert torch.equal(joined.images[2:], torch.from_numpy(IMAGES))
    with pytest.raises(DataError, match="memory_budget_gb"):
        join(StreamSplit(Path(), (), torch.zeros(0), Form(4, 4)), main)


@pytest.mark.parametrize(("extra", "share"), [(100, 0.7), (3, 0.5), (7, 0.1)])
def test_every_batch_has_its_share_and_nothing_comes_twice_before_all_have_come_once(
    extra: int, share: float
) -> None:
    order = SharedOrder(main=45, extra=extra, batch_size=10, share=share)
    assert len(order) == 45
    indices = order(torch.Generator().manual_seed(0)).view(4, 10)
    per_batch = round(share * 10)
    assert ((indices >= 45).sum(dim=1) == per_batch).all()
    own, other = indices[indices < 45], indices[indices >= 45] - 45
    assert len(own.unique()) == len(own)
    assert other.max() < extra
    counts = torch.bincount(other, minlength=extra)
    assert counts.max() - counts.min() <= 1
    again = order(torch.Generator().manual_seed(0)).view(4, 10)
    assert torch.equal(indices, again)
    assert not torch.equal(indices, order(torch.Generator().manual_seed(1)).view(4, 10))


def test_a_set_smaller_than_a_batch_makes_one_batch() -> None:
    order = SharedOrder(main=4, extra=5, batch_size=10, share=0.5)
    assert len(order(torch.Generator().manual_seed(0))) == 10
