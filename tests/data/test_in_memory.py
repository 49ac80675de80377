"""Images that a Python program has, given as they are to train and evaluate."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import rpat_cli as rpat
from rpat_cli.data.in_memory import DatasetSplit, as_split, taken_from
from rpat_cli.errors import DataError, RpatError

BYTES = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
LABELS = torch.arange(40) % 4


class Items(Dataset[Any]):
    """Each item is of the kind that `make` gives; `reads` counts them."""

    def __init__(self, make: Any = lambda pixels: pixels) -> None:
        self.make = make
        self.reads = 0

    def __len__(self) -> int:
        return len(BYTES)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads += 1
        return self.make(BYTES[index]), int(LABELS[index])


def jitter(pixels: Tensor) -> Tensor:
    """Draws from all three generators that transforms use."""
    shift = torch.rand(1) + random.random() + np.random.rand()
    return (pixels / 255 + shift / 10).clamp(0, 1).float()


def all_of(split: Any, batch_size: int = 7) -> Tensor:
    return torch.cat([x for x, _ in split.batches(torch.arange(len(split)), batch_size, "cpu")])


KINDS = [
    (BYTES, LABELS),
    (BYTES / 255, LABELS),
    [BYTES.numpy(), LABELS.numpy()],
    TensorDataset(BYTES, LABELS),
    Items(),
    Items(lambda pixels: pixels / 255),
    Items(lambda pixels: pixels.permute(1, 2, 0).numpy()),
    Items(lambda pixels: Image.fromarray(pixels.permute(1, 2, 0).numpy())),
]


@pytest.mark.parametrize("images", KINDS, ids=range(len(KINDS)))
def test_images_of_every_kind_are_the_same_split(images: Any) -> None:
    split = as_split(images)
    assert split.shape == (3, 16, 16)
    assert torch.equal(split.labels, LABELS)
    assert torch.equal(all_of(split), BYTES / 255)
    part = split.subset(torch.tensor([9, 3, 5])).subset(torch.tensor([2, 0]))
    assert torch.equal(all_of(part), BYTES[[5, 9]] / 255)
    assert torch.equal(part.labels, LABELS[[5, 9]])
    assert part.fingerprint() != split.fingerprint() == as_split(images).fingerprint()


def test_random_transforms_are_the_same_for_any_number_of_workers_and_new_in_each_epoch() -> None:
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    split = DatasetSplit(Items(jitter))
    first = all_of(split.in_epoch(0, 1))
    assert torch.equal(first, all_of(split.in_epoch(0, 1), batch_size=3))
    parallel = DatasetSplit(Items(jitter), workers=2)
    assert torch.equal(first, all_of(parallel.in_epoch(0, 1)))
    assert not torch.equal(first, all_of(split.in_epoch(0, 2)))
    assert torch.equal(all_of(split), all_of(split))  # as validation sees them
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "torch.utils.data.Dataset"),
        ((BYTES / 255, LABELS[:5]), r"\(N, C, H, W\) and y \(N,\)"),
        ((BYTES, LABELS[:5]), "40 images but 5 labels"),
        ((BYTES / 255, LABELS / 2), "integers"),
    ],
)
def test_what_is_no_images(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_split(images)


def test_normalized_images_are_refused_where_they_are_read() -> None:
    split = as_split(Items(lambda pixels: pixels / 128 - 1))
    with pytest.raises(DataError, match=r"image 0 has pixels in \[-.*Leave out Normalize"):
        all_of(split)


def test_names_of_classes_and_recipe_keys_go_along() -> None:
    given, section = taken_from(
        {"train": (BYTES, LABELS), "class_names": "abcd", "val_size": 4}, training=True
    )
    assert given is not None
    assert given.class_names == ("a", "b", "c", "d")
    assert section["val_size"] == 4
    assert section["image_size"] == [16, 16]
    with pytest.raises(DataError, match="labels run to 3, but there are 2 names"):
        taken_from({"train": (BYTES, LABELS), "class_names": "ab"}, training=True)
    with pytest.raises(DataError, match="different shapes"):
        taken_from({"train": (BYTES, LABELS), "test": (BYTES[:, :1], LABELS)}, training=True)
    assert taken_from("cifar10", training=True) == (None, "cifar10")
    assert taken_from({"name": "svhn"}, training=False) == (None, {"name": "svhn"})


def test_tensors_are_trained_on_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys: dict[str, Any] = {
        **{"model": "small-cnn", "epochs": 1, "batch_size": 16, "attack": {"steps": 1}},
        **{"eval": "clean", "validation": {"steps": 1}, "threat": {"norm": "Linf", "eps": 0.03}},
    }
    run = rpat.train(data=(BYTES, LABELS), **keys)
    evaluation, _ = rpat.evaluate(run, "clean", data=(BYTES[:12] / 255, LABELS[:12]))
    assert evaluation.n == 12
    model = rpat.load_model(run).model
    with torch.no_grad():
        wanted = int((model(BYTES[:12] / 255).argmax(1) == LABELS[:12]).sum())
    assert evaluation.clean.correct == wanted
    with pytest.raises(RpatError, match="given in Python"):
        rpat.evaluate(run, "clean")


def test_a_model_in_memory_on_a_dataset_reads_it_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    evaluation, _ = rpat.evaluate(model, "clean,pgd-1", data=Items(lambda pixels: pixels / 255))
    assert evaluation.n == 40
    with torch.no_grad():
        wanted = int((model(BYTES / 255).argmax(1) == LABELS).sum())
    assert evaluation.clean.correct == wanted
