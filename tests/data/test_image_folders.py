"""Image trees: decoding, the memory budget, streaming through worker processes."""

import shutil

import numpy as np
import pytest
import torch
from on_disk import write_image, write_imagefolder
from PIL import Image

from rpat_cli.data.images import Form, decode
from rpat_cli.data.load import load_dataset
from rpat_cli.data.splits import StreamSplit, TensorSplit
from rpat_cli.errors import DataError


def load(root, **options):
    return load_dataset(
        "imagefolder", root=root, **{"val_size": 0, "workers": 0, "image_size": 16, **options}
    )


@pytest.mark.parametrize("test", ["test", "val"])
def test_reads_any_tree(tmp_path, test):
    write_imagefolder(tmp_path, test=test)
    data = load(tmp_path, val_size=2)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 8)
    assert data.class_names == ("ant", "bee")
    assert data.shape == (3, 16, 16)
    x, y = data.test.tensors()
    assert torch.allclose(x[:, 0, 3, 3] * 255, y * 100.0, atol=1e-4)
    assert load(tmp_path, image_size=None).shape == (3, 64, 64)


def test_val_stands_in_for_a_test_folder_without_labels(tmp_path):
    write_imagefolder(tmp_path, test="val")
    write_image(tmp_path / "test/images/0.png", (1, 2, 3))
    (tmp_path / "train/.cache").mkdir()
    assert all(file.startswith("val/") for file in load(tmp_path).test.files)


def test_decode_resizes_the_shorter_side_and_cuts_the_centre(tmp_path):
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = (10, 20, 30)  # exactly the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert torch.equal(
        decode(tmp_path / "wide.png", Form(8, 8)),
        torch.tensor([10, 20, 30]).byte().view(3, 1, 1).expand(3, 8, 8),
    )
    assert decode(tmp_path / "wide.png", Form(4, 4)).shape == (3, 4, 4)


def test_decode_keeps_pixels_of_the_right_size(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", Form(16, 16)).permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize(
    ("mode", "color", "rgb"),
    [
        ("L", 90, (90, 90, 90)),
        ("RGBA", (100, 200, 40, 255), (100, 200, 40)),
        ("RGBA", (100, 200, 40, 51), (20, 40, 8)),  # on black
        ("1", 1, (255, 255, 255)),
        ("LA", (7, 255), (7, 7, 7)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, color, rgb):
    write_image(tmp_path / "a.png", color, size=(20, 12), mode=mode)
    assert decode(tmp_path / "a.png", Form(8, 8))[:, 4, 4].tolist() == list(rgb)


def test_budget_decides_between_memory_and_streaming(tmp_path):
    write_imagefolder(tmp_path)
    size = 8 * 3 * 16 * 16
    assert isinstance(load(tmp_path, memory_budget=size).train.to("cpu"), TensorSplit)
    streamed = load(tmp_path, memory_budget=size - 1).train
    assert isinstance(streamed.to("cpu"), StreamSplit)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_memory_gives(tmp_path, workers):
    write_imagefolder(tmp_path, per_class=10)
    streamed = load(tmp_path, memory_budget=0, workers=workers).train
    stored = load(tmp_path).train.to("cpu")
    order = torch.randperm(len(streamed))
    state = torch.get_rng_state()
    one = list(streamed.batches(order, 6, "cpu"))
    assert torch.equal(state, torch.get_rng_state())  # the run's random numbers stay as they were
    two = list(stored.batches(order, 6, "cpu"))
    assert [len(y) for _, y in one] == [6, 6, 6, 2]
    assert all(
        torch.equal(a, b) for pair in zip(one, two, strict=True) for a, b in zip(*pair, strict=True)
    )
    later = list(streamed.batches(order[12:], 6, "cpu"))
    assert torch.equal(later[0][0], one[2][0])
    assert list(streamed.batches(order[:0], 6, "cpu")) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_image_is_named(tmp_path, workers):
    write_imagefolder(tmp_path)
    bad = tmp_path / "train/bee/2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    train = load(tmp_path, workers=workers).train
    for read in (lambda: train.to("cpu"), lambda: list(train.batches(torch.arange(8), 2, "cpu"))):
        with pytest.raises(DataError) as caught:
            read()
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)
    bad.write_text("not an image")
    with pytest.raises(DataError, match=str(bad)):
        train.tensors()


def test_fingerprint_follows_names_contents_and_labels_not_the_place(tmp_path):
    write_imagefolder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = load(tmp_path / "a").fingerprint
    assert load(tmp_path / "b").fingerprint == first
    assert load(tmp_path / "b", image_size=8).fingerprint != first
    write_image(tmp_path / "b/test/ant/9.png", (0, 0, 0))
    assert load(tmp_path / "b").fingerprint != first


def test_what_is_wrong_with_a_tree(tmp_path):
    with pytest.raises(DataError, match=f"no images at {tmp_path}/train/CLASS"):
        load(tmp_path)
    write_imagefolder(tmp_path)
    (tmp_path / "test/bee").rename(tmp_path / "test/wasp")
    with pytest.raises(DataError, match="different classes; in one of them only: bee, wasp"):
        load(tmp_path)
    (tmp_path / "test/wasp").rename(tmp_path / "test/bee")
    shutil.rmtree(tmp_path / "train/ant")
    (tmp_path / "train/ant").mkdir()
    (tmp_path / "train/ant/notes.txt").write_text("")
    with pytest.raises(DataError, match=f"no image in {tmp_path}/train/ant"):
        load(tmp_path)
