"""Images that are read when they are needed: the same ones whoever reads them, and no more than
asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from rpat_cli.attacks.threat import Threat
from rpat_cli.data.images import EpochCrops, Form, RandomCrop, decode
from rpat_cli.data.load import load_dataset
from rpat_cli.data.reading import Images, chosen_of, pieces_of, read_batches
from rpat_cli.data.splits import TensorSplit
from rpat_cli.errors import ConfigError, DataError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.evaluation.verify import batches
from rpat_cli.user_code import ascribed
from tests.helpers import tiny_net


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture, different everywhere."""
    noise = np.random.RandomState(seed).randint(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def write_scenes(root: Path, count: int = 12) -> Path:
    for index in range(count):
        for split in ("train", "test"):
            path = root / split / f"c{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(40 + index, 30, seed=index).save(path)
    return root


def load(root: Path, **options: Any) -> Any:
    return load_dataset("imagefolder", root=root, val_size=2, image_size=16, **options)


def all_of(split: Any, order: Tensor | None = None) -> Tensor:
    order = torch.arange(len(split)) if order is None else order
    return torch.cat([x for x, _ in split.batches(order, 3, "cpu")])


@dataclass
class Watched:
    """A split that keeps which images were read, batch by batch."""

    split: TensorSplit
    read: list[list[int]] = field(default_factory=list)

    @property
    def labels(self) -> Tensor:
        return self.split.labels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.split.shape

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, order: Tensor, size: int, device: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in torch.split(order, size):
            self.read.append(chunk.tolist())
            yield from self.split.batches(chunk, size, device)


def watched(count: int = 10) -> tuple[Watched, Tensor]:
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    split = TensorSplit(pixels, torch.arange(count) % 10)
    return Watched(split), split.tensors()[0]


def test_images_are_indexed_and_batched_as_a_tensor_is() -> None:
    split, x = watched()
    images = Images(split)  # type: ignore[arg-type]
    assert (len(images), images.shape) == (len(x), x.shape)
    assert split.read == []
    indices = torch.tensor([7, 2, 2])
    for which in (indices, slice(2, 5), slice(None, 3), slice(None), slice(5, 5)):
        assert torch.equal(images[which], x[which])
    assert split.read[:2] == [[7, 2, 2], [2, 3, 4]]
    pieces = [torch.tensor([1, 2]), torch.tensor([9, 0]), torch.arange(0), torch.tensor([4])]
    for found, wanted in zip(pieces_of(images, pieces), pieces_of(x, pieces), strict=True):
        assert torch.equal(found, wanted)
    y = torch.arange(10)
    device = torch.device("cpu")
    for one, two in zip(batches(images, y, 4, device), batches(x, y, 4, device), strict=True):
        assert all(map(torch.equal, one, two))


def test_choosing_images_reads_none() -> None:
    split, x = watched()
    chosen = chosen_of(Images(split.split), torch.tensor([3, 1]))
    assert torch.equal(chosen[:], x[[3, 1]])
    assert torch.equal(chosen_of(x, torch.tensor([3, 1])), x[[3, 1]])


def test_batches_are_read_one_at_a_time() -> None:
    split, _ = watched()
    reading = read_batches(split, [torch.tensor([1, 2]), torch.tensor([3, 4])], "cpu")
    next(reading)
    assert split.read == [[1, 2]]


def test_an_evaluation_of_images_is_that_of_their_tensor_and_reads_chunks_only() -> None:
    torch.manual_seed(0)
    split, x = watched(23)
    model = tiny_net().eval()
    with torch.no_grad():
        y = model(x).argmax(1)  # all of them right
    y[::7] += 1
    y %= 10
    arguments = y, parse_suite("clean,pgd-2,noise")
    threat = Threat("Linf", 2 / 255)
    one = evaluate(model, Images(split), *arguments, threat, batch_size=5)  # type: ignore[arg-type]
    two = evaluate(model, x, *arguments, threat, batch_size=5)
    for left, right in zip(one.results, two.results, strict=True):
        assert torch.equal(left.correct_after, right.correct_after)
        assert torch.equal(left.margin, right.margin)
    assert max(map(len, split.read)) == 5
    right_indices = (y == one.clean_predicted).nonzero().flatten().tolist()
    attacked = sorted(index for read in split.read[6:] for index in read)
    assert set(attacked) <= set(right_indices)


def test_pixels_beyond_the_box_are_refused_also_where_they_are_read_late() -> None:
    split, _ = watched()
    split.batches = lambda *_: iter([(2 * torch.ones(10, 3, 8, 8), None)])  # type: ignore
    with pytest.raises(DataError, match=r"floats in \[0, 1\]"):
        evaluate(tiny_net(), Images(split), split.labels, parse_suite("clean"), Threat("Linf", 0.1))


def test_random_crops_depend_on_seed_epoch_and_image_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    crop = RandomCrop((0.1, 0.5))
    train = load(tmp_path, train_crop=crop).train
    assert train.to("cpu") is train  # other pixels in every epoch: nothing to keep
    order = torch.randperm(len(train))
    state = torch.get_rng_state()
    first = all_of(train.in_epoch(0, 0), order)
    assert torch.equal(state, torch.get_rng_state())
    parallel = load(tmp_path, train_crop=crop, workers=2).train
    assert torch.equal(first, all_of(parallel.in_epoch(0, 0), order))
    assert torch.equal(first[6:], all_of(train.in_epoch(0, 0), order[6:]))  # a resume
    assert not torch.equal(first, all_of(train.in_epoch(0, 1), order))
    assert not torch.equal(first, all_of(train.in_epoch(1, 0), order))


def test_validation_and_test_images_are_whole(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    cropped, plain = load(tmp_path, train_crop=RandomCrop()), load(tmp_path)
    for name in ("val", "test", "train"):
        assert torch.equal(all_of(getattr(cropped, name)), all_of(getattr(plain, name)))
    assert cropped.fingerprint == plain.fingerprint
    assert cropped.train_fingerprint == plain.train_fingerprint


def test_random_crops_are_for_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_crop"):
        load_dataset("fashion-mini", root=tmp_path, val_size=10, train_crop=RandomCrop())


@pytest.mark.parametrize("size", [(50, 40), (400, 10), (10, 400)])
def test_boxes_are_inside_with_the_shares_and_ratios_asked_for(size: tuple[int, int]) -> None:
    crop = RandomCrop((0.2, 0.6))
    boxes = np.array([crop.box(*size, Random(seed)) for seed in range(500)])
    left, upper, right, lower = boxes.T
    assert (boxes >= 0).all()
    assert (right <= size[0]).all()
    assert (lower <= size[1]).all()
    w, h = right - left, lower - upper
    if size == (50, 40):
        share = w * h / 2000
        assert 0.17 < share.min() < 0.25
        assert 0.55 < share.max() < 0.65
        assert 0.37 < share.mean() < 0.43
        assert 0.7 < (w / h).min() < 0.8
        assert 1.25 < (w / h).max() < 1.42
        assert left.min() == upper.min() == 0
    else:  # nothing that large has such a ratio: the largest box in the middle
        assert set(map(tuple, boxes)) <= {(194, 0, 207, 10), (193, 0, 206, 10), (0, 193, 10, 206)}


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("box", [(3, 5, 40, 31), (0, 0, 60, 44), (20, 4, 24, 40)])
def test_a_crop_is_torchvisions(tmp_path: Path, name: str, box: tuple[int, ...]) -> None:
    scene(60, 44).save(tmp_path / name, quality=95)
    left, upper, right, lower = box
    found = decode(tmp_path / name, Form(33, 20), lambda *_: box)  # type: ignore[return-value, arg-type]
    with Image.open(tmp_path / name) as image:
        place = (upper, left, lower - upper, right - left)
        wanted = F.resized_crop(image, *place, [33, 20], InterpolationMode.BILINEAR)
    assert torch.equal(found, F.pil_to_tensor(wanted))


@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_large_jpegs_are_decoded_no_larger_than_needed(
    tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(640, 480).save(tmp_path / "a.jpg", quality=98, exif=exif)
    scene(640, 480).save(tmp_path / "a.png", exif=exif)
    upright = (640, 480) if orientation in (1, 3) else (480, 640)
    decoded = []
    original = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda i: decoded.append(i.size) or original(i))

    def box_of(width: int, height: int) -> tuple[int, int, int, int]:
        if not decoded:
            assert (width, height) == upright
        return width // 8, height // 4, width // 8 + width // 2, height // 4 + height // 2

    fast = decode(tmp_path / "a.jpg", Form(32, 32), box_of)
    assert decoded[0] in ((160, 120), (120, 160))
    exact = decode(tmp_path / "a.png", Form(32, 32), box_of)
    assert (fast.int() - exact.int()).abs().max() <= 8


def test_a_crop_follows_from_the_number_of_the_image(tmp_path: Path) -> None:
    crops = EpochCrops(RandomCrop(), seed=5, epoch=2)
    assert crops.box(3, 500, 400) == EpochCrops(RandomCrop(), 5, 2).box(3, 500, 400)
    assert len({crops.box(number, 500, 400) for number in range(50)}) == 50


def test_a_decoding_process_that_is_killed_is_no_bug_of_ours() -> None:
    """torch raises this from a signal handler, wherever the process is just then."""
    with pytest.raises(DataError, match=r"killed by signal.*data\.workers=1"), ascribed():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nOr so.")
