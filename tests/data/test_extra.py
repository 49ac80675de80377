"""Further training images: read from files as people have them, refused with reasons, mixed in by
share."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from rpat_cli.data.extra import load_extra
from rpat_cli.data.joined import Joined, one_ahead
from rpat_cli.data.order import AT_ONCE, SharedOrder, permuted
from rpat_cli.data.parts import PartsSplit
from rpat_cli.data.splits import TensorSplit
from rpat_cli.errors import DataError

IMAGES = np.random.RandomState(0).randint(0, 256, (6, 3, 4, 5), dtype=np.uint8)
LABELS = np.arange(6) % 3


def write(folder: Path, *, save: Any = np.savez, **arrays: Any) -> Path:
    save(folder / "extra.npz", **arrays)
    return folder / "extra.npz"


def read(split: PartsSplit, order: list[int] | None = None, batch_size: int = 4) -> Any:
    """Images (N, C, H, W) as bytes and labels (N,), through the batches of training."""
    indices = torch.arange(len(split)) if order is None else torch.tensor(order)
    batches = list(split.batches(indices, batch_size, "cpu"))
    pixels = torch.cat([x for x, _ in batches])
    assert pixels.dtype == torch.float32
    return (pixels * 255).round().to(torch.uint8), torch.cat([y for _, y in batches])


@pytest.mark.parametrize("names", [("images", "labels"), ("image", "label"), ("x", "y")])
@pytest.mark.parametrize("channels_last", [False, True])
def test_both_orders_of_axes_and_the_usual_names(
    tmp_path: Path, names: tuple[str, str], channels_last: bool
) -> None:
    images = IMAGES.transpose(0, 2, 3, 1) if channels_last else IMAGES
    path = write(tmp_path, **{names[0]: images, names[1]: LABELS.astype(np.int32)})
    found, labels = read(load_extra([path], (3, 4, 5), 3))
    assert torch.equal(found, torch.from_numpy(IMAGES))
    assert torch.equal(labels, torch.from_numpy(LABELS))
    assert labels.dtype == torch.int64


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
        load_extra([path], (3, 4, 5), 3)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of extra images.*data\.extra\.path"):
        load_extra([tmp_path / "nothing.npz"], (3, 4, 5), 3)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        load_extra([tmp_path / "text.npz"], (3, 4, 5), 3)
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="one_labels.npy or labels.npy"):
        load_extra([tmp_path / "one.npy"], (3, 4, 5), 3)
    whole = write(tmp_path, images=IMAGES, labels=LABELS)
    whole.write_bytes(whole.read_bytes()[:-60])
    with pytest.raises(DataError, match="cannot be read"):
        load_extra([whole], (3, 4, 5), 3)


@pytest.mark.parametrize("labels", ["gen_data_labels", "gen_labels"])
def test_labels_of_images_that_are_called_data(tmp_path: Path, labels: str) -> None:
    np.save(tmp_path / "gen_data.npy", IMAGES)
    np.save(tmp_path / f"{labels}.npy", LABELS)
    (part,) = load_extra([tmp_path / "gen_data.npy"], (3, 4, 5), 3).parts
    assert part.labels.tolist() == LABELS.tolist()


def as_npy_with_labels_next_to_it(folder: Path, images: Any, labels: Any) -> Path:
    np.save(folder / "a.npy", images)
    np.save(folder / "a_labels.npy", labels)
    return folder / "a.npy"


def as_a_folder(folder: Path, images: Any, labels: Any) -> Path:
    """As `python -m zipfile -e` leaves it."""
    path = write(folder, image=images, label=labels)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "extra")
    return folder / "extra"


def as_compressed(folder: Path, images: Any, labels: Any) -> Path:
    return write(folder, save=np.savez_compressed, images=images, labels=labels)


def as_stored(folder: Path, images: Any, labels: Any) -> Path:
    return write(folder, images=images, labels=labels)


FORMS = [as_stored, as_compressed, as_npy_with_labels_next_to_it, as_a_folder]


def in_parts(folder: Path) -> list[Path]:
    """`IMAGES` and `LABELS`, 1 + 2 + 2 + 1 of them, each part in another form and, every other one,
    with its channels last."""
    paths, begin = [], 0
    for number, (form, size) in enumerate(zip(FORMS, [1, 2, 2, 1], strict=True)):
        (folder / form.__name__).mkdir()
        images, labels = (array[begin : begin + size] for array in (IMAGES, LABELS))
        images = images.transpose(0, 2, 3, 1).copy() if number % 2 else images
        paths.append(form(folder / form.__name__, images, labels))
        begin += size
    return paths


def test_parts_of_any_form_are_read_as_if_they_were_one_file(tmp_path: Path) -> None:
    split = load_extra(in_parts(tmp_path), (3, 4, 5), 3)
    assert len(split) == 6
    for batch_size in (1, 4, 6):
        images, labels = read(split, [5, 0, 3, 3, 1, 4, 2], batch_size)
        assert torch.equal(images, torch.from_numpy(IMAGES[[5, 0, 3, 3, 1, 4, 2]]))
        assert torch.equal(labels, torch.from_numpy(LABELS[[5, 0, 3, 3, 1, 4, 2]]))


def test_parts_have_the_fingerprint_of_the_whole_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that runs which began with one file in memory go on."""
    split = load_extra(in_parts(tmp_path), (3, 4, 5), 3)
    whole = TensorSplit(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    assert split.fingerprint() == whole.fingerprint()
    monkeypatch.setattr("rpat_cli.data.parts.READ_WHOLE", 10)  # more is sampled
    sampled = split.fingerprint()
    again = load_extra(in_parts_of(tmp_path), (3, 4, 5), 3)
    assert sampled == again.fingerprint() != whole.fingerprint()


def in_parts_of(folder: Path) -> list[Path]:
    """The same images in one file."""
    return [as_stored(folder, IMAGES, LABELS)]


def test_only_the_images_of_a_batch_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_whole_array(*_: Any, **__: Any) -> None:
        raise AssertionError("np.load reads an array whole")

    monkeypatch.setattr(np, "load", no_whole_array)
    path = write(tmp_path, images=IMAGES, labels=LABELS)
    split = load_extra([path], (3, 4, 5), 3)
    images = split.parts[0].images
    # Everything but the fourth image is destroyed in the file.
    content = bytearray(path.read_bytes())
    first = images.offset + 3 * 60
    content[images.offset : first] = bytes(180)
    content[first + 60 : images.offset + 360] = bytes(120)
    path.write_bytes(content)
    assert torch.equal(read(split, [3])[0], torch.from_numpy(IMAGES[3:4]))


def test_what_is_compressed_and_too_large_is_refused_with_the_command_that_unpacks_it(
    tmp_path: Path,
) -> None:
    path = as_compressed(tmp_path, IMAGES, LABELS)
    with pytest.raises(DataError, match="memory_budget_gb") as refused:
        load_extra([path], (3, 4, 5), 3, memory_budget=IMAGES.nbytes - 1)
    command = str(refused.value).rpartition("extra data: python ")[2].split()
    subprocess.run([sys.executable, *command], check=True)
    images, _ = read(load_extra([path.with_suffix("")], (3, 4, 5), 3, memory_budget=0))
    assert torch.equal(images, torch.from_numpy(IMAGES))


def test_two_parts_cannot_share_a_file_of_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    assert len(load_extra([tmp_path / "a.npy"], (3, 4, 5), 3)) == 6
    with pytest.raises(DataError, match=r"both .*a\.npy and .*b\.npy.*NAME_labels\.npy"):
        load_extra([tmp_path / "a.npy", tmp_path / "b.npy"], (3, 4, 5), 3)


@pytest.mark.parametrize("form", [as_stored, as_npy_with_labels_next_to_it])
def test_a_file_that_shrinks_during_the_training_is_named(tmp_path: Path, form: Any) -> None:
    path = form(tmp_path, IMAGES, LABELS)
    split = load_extra([path], (3, 4, 5), 3)
    path.write_bytes(path.read_bytes()[:250])
    with pytest.raises(DataError, match=rf"{path.name}: it ends before its last image"):
        read(split)
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        read(split)


@pytest.mark.parametrize("order", [[0, 1, 2, 7, 6], [7, 0, 1, 3, 6, 2, 5, 4], [1, 0], [6, 7, 2]])
def test_the_data_set_comes_first_and_then_the_extra_images(
    tmp_path: Path, order: list[int]
) -> None:
    zeros = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    main = TensorSplit(zeros, torch.tensor([9, 8]))
    joined = Joined(main, load_extra(in_parts(tmp_path), (3, 4, 5), 3))
    assert len(joined) == 8
    x, y = (
        torch.cat(part) for part in zip(*joined.batches(torch.tensor(order), 4, "cpu"), strict=True)
    )
    images = torch.cat([zeros, torch.from_numpy(IMAGES)])[order]
    assert torch.equal(x, images.float() / 255)
    assert torch.equal(y, torch.cat([main.labels, torch.from_numpy(LABELS)])[order])


def test_reading_ahead_keeps_order_and_errors() -> None:
    assert list(one_ahead(iter(range(5)))) == list(range(5))

    def failing() -> Any:
        yield 1
        raise DataError("gone")

    items = one_ahead(failing())
    assert next(items) == 1
    with pytest.raises(DataError, match="gone"):
        next(items)


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


class LargestTensor(TorchFunctionMode):
    """The number of elements of the largest tensor that any function of torch returns."""

    largest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.largest = max(self.largest, found.numel())
        return found


@pytest.mark.parametrize("count", [1, 2, 3, 100, 257, 65_536, 100_003])
def test_a_permutation_has_every_number_once(count: int) -> None:
    found = permuted(torch.arange(count), count, torch.Generator().manual_seed(0))
    assert torch.equal(found.sort().values, torch.arange(count))
    if count > 99:
        other = permuted(torch.arange(count), count, torch.Generator().manual_seed(1))
        assert (found == other).sum() < 10
        # About one fixed point, and no trend: as chance has it.
        assert (found == torch.arange(count)).sum() < 8
        ranks = torch.stack([torch.arange(count), found]).double()
        assert abs(float(torch.corrcoef(ranks)[0, 1])) < 4 / count**0.5


def test_fifty_million_images_are_ordered_where_needed() -> None:
    """As numbers of 8 bytes they would take 400 MB."""
    count = 50_000_000
    order = SharedOrder(main=1000, extra=count, batch_size=100, share=0.8)
    with LargestTensor() as made:
        indices = order(torch.Generator().manual_seed(3))
    assert made.largest <= 1000
    other = indices[indices >= 1000] - 1000
    assert len(other.unique()) == 800
    assert other.max() < count
    assert 0.45 < float(other.double().mean()) / count < 0.55
    assert torch.equal(indices, order(torch.Generator().manual_seed(3)))


def test_what_is_used_up_comes_again_also_in_a_large_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpat_cli.data.order.AT_ONCE", 10)
    assert AT_ONCE == 2**22
    order = SharedOrder(main=100, extra=11, batch_size=10, share=0.3)
    other = order(torch.Generator().manual_seed(0)).view(10, 10)[:, 7:].flatten() - 100
    counts = torch.bincount(other, minlength=11)
    assert counts.max() - counts.min() <= 1
