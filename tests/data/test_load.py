"""Hold-out, checks and the registry, on the set that comes with the package."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rpat_cli.data import DATASETS
from rpat_cli.data.base import RawData
from rpat_cli.data.fashion import DEBIAN_FOLDER, FASHION_MINI, MINI_SIZES, load_mini, make_mini
from rpat_cli.data.load import load_dataset
from rpat_cli.data.splits import TensorSplit, stratified_choice
from rpat_cli.errors import ConfigError, DataError

NOWHERE = Path("/nonexistent")


def load(**options):
    return load_dataset("fashion-mini", root=NOWHERE, **{"val_size": 200, **options})


def test_listing_names_does_not_import_torch():
    code = """if True:
        import sys
        from rpat_cli.data import AUGMENTATIONS, DATASETS
        assert list(DATASETS) and list(AUGMENTATIONS)
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fashion_mini_needs_no_torchvision():
    code = """if True:
        import sys
        sys.modules["torchvision"] = None
        from rpat_cli.data.load import load_dataset
        assert len(load_dataset("fashion-mini", root=".", val_size=0.1).test) == 500
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_entry_is_a_spec_of_that_name(name):
    spec = DATASETS[name]
    assert spec.name == name
    assert set(spec.eps) == {"Linf", "L2", "L1"}
    assert len(spec.mean) == len(spec.std) == (spec.shape[0] if spec.shape else 3)
    assert all(0 < value < 1 for value in (*spec.mean, *spec.std))


def test_each_set_has_its_own_normalization():
    means = {DATASETS[name].mean for name in DATASETS}
    assert len(means) == len(DATASETS)


def test_fashion_mini_is_whole_and_balanced():
    data = load(val_size=0)
    assert (len(data.train), len(data.val), len(data.test)) == (2000, 0, 500)
    assert (data.shape, data.classes) == ((1, 28, 28), 10)
    assert set(Counter(data.train.labels.tolist()).values()) == {200}
    assert set(Counter(data.test.labels.tolist()).values()) == {50}


def test_fashion_mini_constants_are_those_of_its_training_images():
    x, _ = load(val_size=0).train.tensors()
    assert x.min() == 0
    assert x.max() == 1
    assert (round(float(x.double().mean()), 4),) == FASHION_MINI.mean
    assert (round(float(x.double().std()), 4),) == FASHION_MINI.std


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)
def test_fashion_mini_is_reproduced_from_the_whole_set():
    made = make_mini()
    raw = load_mini(None)
    for part in MINI_SIZES:
        split = getattr(raw, part)
        assert np.array_equal(made[f"x_{part}"], split.images.numpy())
        assert np.array_equal(made[f"y_{part}"], split.labels.numpy())


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)
def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path):
    data = load_dataset("fashion-mnist", root=tmp_path, val_size=1000)
    assert (len(data.train), len(data.val), len(data.test)) == (59000, 1000, 10000)
    x = data.train.tensors()[0].double()
    assert (round(float(x.mean()), 3), round(float(x.std()), 3)) == (0.286, 0.353)


@pytest.mark.parametrize(
    ("val_size", "count"), [(200, 200), (0.1, 200), (7, 7), (0.0, 0), (1e-4, 1), (1990, 1990)]
)
def test_validation_comes_out_of_training(val_size, count):
    whole, data = load(val_size=0), load(val_size=val_size)
    assert (len(data.val), len(data.train)) == (count, 2000 - count)
    together = torch.cat([data.train.images, data.val.images]).flatten(1)
    assert sorted(map(tuple, together.tolist())) == sorted(
        map(tuple, whole.train.images.flatten(1).tolist())
    )
    assert torch.equal(data.test.images, whole.test.images)
    per_class = Counter(data.val.labels.tolist())
    assert (
        max(per_class.values(), default=0) - min((per_class[c] for c in range(10)), default=0) <= 1
    )


def test_validation_depends_on_the_seed_and_on_nothing_else():
    state = torch.get_rng_state()
    np.random.seed(1)
    first = load(seed=3).val.images
    np.random.seed(2)
    assert torch.equal(first, load(seed=3).val.images)
    assert not torch.equal(first, load(seed=4).val.images)
    assert torch.equal(state, torch.get_rng_state())


def test_choice_follows_the_share_of_each_class_and_leaves_one():
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 99 + [3])
    chosen = stratified_choice(labels, 100, seed=0)
    counts = Counter(labels[chosen].tolist())
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert [abs(counts[c] - share) <= 1 for c, share in enumerate((60, 30, 10, 0))] == [True] * 4
    assert counts[3] == 0
    most = Counter(labels[stratified_choice(labels, 996, seed=0)].tolist())
    assert most == {0: 599, 1: 299, 2: 98}


@pytest.mark.parametrize("val_size", [1991, 2000, 10**6, -1, 1.0, 0.999, -0.1, float("nan")])
def test_impossible_val_size(val_size):
    with pytest.raises(ConfigError, match="val_size"):
        load(val_size=val_size)


def test_image_size_is_for_imagefolder():
    assert load(image_size=28).shape == (1, 28, 28)
    with pytest.raises(ConfigError, match="28 pixels a side"):
        load(image_size=32)
    with pytest.raises(ConfigError, match="at least 1"):
        load_dataset("imagefolder", root=NOWHERE, val_size=0, image_size=0)


def test_unknown_name():
    with pytest.raises(ConfigError, match="Did you mean 'cifar10'"):
        load_dataset("cifar-10", root=NOWHERE, val_size=0)


def test_fingerprint_is_of_the_test_set():
    data = load()
    assert data.fingerprint == load(seed=5, val_size=3).fingerprint == data.test.fingerprint()
    assert len(data.fingerprint) == 64
    changed = data.test.images.clone()
    changed[7, 0, 3, 3] += 1
    assert TensorSplit(changed, data.test.labels).fingerprint() != data.fingerprint
    assert TensorSplit(data.test.images, data.test.labels.flip(0)).fingerprint() != data.fingerprint


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        ((4, 3, 28, 28), [0, 1, 2, 3], 10, "C, H, W"),
        ((4, 1, 28, 28), [0, 1, 2, 10], 10, "labels run from 0 to 10"),
        ((4, 1, 28, 28), [0, 1, 2, 3], 9, "10 classes"),
        ((0, 1, 28, 28), [], 10, "no training image"),
    ],
)
def test_data_of_another_kind_than_announced(monkeypatch, images, labels, names, message):
    split = TensorSplit(
        torch.zeros(images, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64)
    )
    raw = RawData(split, split, tuple(map(str, range(names))))
    monkeypatch.setitem(
        DATASETS._entries, "fashion-mini", replace(FASHION_MINI, load=lambda _: raw)
    )
    with pytest.raises(DataError, match=message):
        load(val_size=0)


def test_batches_follow_the_order_and_are_in_the_unit_interval():
    split = load().train
    order = torch.randperm(len(split))[:50]
    batches = list(split.batches(order, 16, "cpu"))
    assert [len(y) for _, y in batches] == [16, 16, 16, 2]
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    assert x.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), split.images[order])
    assert torch.equal(y, split.labels[order])
    assert list(split.batches(order[:0], 16, "cpu")) == []
    assert torch.equal(split.tensors()[0][order], x)


def test_images_and_labels_must_be_as_many():
    with pytest.raises(DataError, match="2 images but 3 labels"):
        TensorSplit(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
