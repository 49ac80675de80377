"""Trees of images as people have them: litter, other names of splits, test images alone, names that
are no text; and two trees are the same only if their pixels are."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rpat_cli.attacks.threat import Threat
from rpat_cli.data.load import load_dataset
from rpat_cli.data.splits import TensorSplit
from rpat_cli.errors import ConfigError, DataError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite


def write(path: Path, level: int = 0, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size, 3), level, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_tree(root: Path, *splits: str, per_class: int = 6) -> Path:
    for split in splits:
        for number, name in enumerate(("ant", "bee")):
            for k in range(per_class):
                write(root / split / name / f"{k}.png", 100 * number + k)
    return root


def load(root: Path, val_size: float | None = 0.2, **options):
    return load_dataset(
        "imagefolder", root=root, val_size=val_size, **{"image_size": 8, "workers": 0, **options}
    )


@pytest.mark.parametrize("val_size", [0.2, None])
def test_litter_is_no_image_and_no_class(tmp_path, val_size):
    clean = load(write_tree(tmp_path, "train", "test"), val_size)
    for folder in (tmp_path, tmp_path / "train", tmp_path / "test", tmp_path / "test/ant"):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "__pycache__", ".cache"):
            write(folder / name / "copy.png")
            write(folder / name / "ant" / "copy.png")
        for name in ("._0.png", ".hidden.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "a.txt"):
            (folder / name).write_bytes(b"litter")
    littered = load(tmp_path, val_size)
    assert littered.class_names == clean.class_names == ("ant", "bee")
    assert littered.test.files == clean.test.files
    assert littered.train.files == clean.train.files
    assert littered.fingerprint == clean.fingerprint


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "valid", "Validation"])
def test_other_spellings_of_the_splits(tmp_path, train, test):
    data = load(write_tree(tmp_path, train, test))
    assert {file.split("/")[0] for file in data.train.files} == {train}
    assert {file.split("/")[0] for file in data.test.files} == {test}
    assert load(tmp_path, None).fingerprint == data.fingerprint


@pytest.mark.parametrize("split", ["test", "val", "validation"])
def test_test_images_alone_are_enough_to_evaluate(tmp_path, split):
    data = load(write_tree(tmp_path, split, per_class=1), None)
    assert (len(data.train), len(data.val), len(data.test)) == (0, 0, 2)
    with pytest.raises(DataError, match="no images at .*/train/CLASS"):
        load(tmp_path)


def test_no_split_is_made_for_an_evaluation(tmp_path):
    write_tree(tmp_path, "train", "test", per_class=2)
    assert len(load(tmp_path, None).test) == 4
    shutil.rmtree(tmp_path / "train/ant")
    (tmp_path / "train/ant").mkdir()  # its images are somewhere else
    assert load(tmp_path, None).class_names == ("ant", "bee")


def test_a_validation_folder_that_is_not_used_is_named(tmp_path):
    write_tree(tmp_path, "train", "valid", "test")
    (remark,) = load(tmp_path).remarks
    assert "valid/ is not used" in remark
    assert "data.val_size" in remark
    assert load(tmp_path, None).remarks == ()


def test_a_tree_without_splits(tmp_path):
    write_tree(tmp_path, ".", per_class=10)
    assert len(load(tmp_path, None).test) == 20
    with pytest.raises(DataError, match="data.test_size"):
        load(tmp_path)
    data = load(tmp_path, test_size=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (13, 3, 4)
    assert not {*data.train.files, *data.val.files} & {*data.test.files}
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert load(tmp_path, None, test_size=0.2).test.files == data.test.files  # as trained


def test_validation_images_of_their_own(tmp_path):
    write_tree(tmp_path, "train", "test", per_class=10)
    held_out = load(tmp_path)
    with pytest.raises(DataError, match=r"to have both test/CLASS/\* and val/CLASS/\*"):
        load(tmp_path, val_folder=True)
    write_tree(tmp_path, "valid", per_class=3)
    assert "--set data.val_folder=true" in load(tmp_path).remarks[0]
    assert load(tmp_path).train_fingerprint == held_out.train_fingerprint
    data = load(tmp_path, val_folder=True)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 6, 20)
    assert {file.split("/")[0] for file in data.val.files} == {"valid"}
    assert data.val.labels.tolist() == [0] * 3 + [1] * 3
    assert data.remarks == ()
    assert data.fingerprint == held_out.fingerprint
    assert data.train_fingerprint != held_out.train_fingerprint
    for file in (tmp_path / "valid/ant").iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    assert load(tmp_path, val_folder=True).train_fingerprint != data.train_fingerprint
    (tmp_path / "valid" / "ant").rename(tmp_path / "valid" / "wasp")
    with pytest.raises(DataError, match="wasp"):
        load(tmp_path, val_folder=True)


def test_only_folders_have_validation_images_of_their_own(tmp_path):
    with pytest.raises(ConfigError, match=r"val_folder: .*for imagefolder only"):
        load_dataset("fashion-mini", root=tmp_path, val_size=100, val_folder=True)


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("bus", "train", "test"):
        write(tmp_path / name / "0.png")
    assert load(tmp_path, None).class_names == ("bus", "test", "train")


def test_gray_images_and_rectangles(tmp_path):
    data = load(write_tree(tmp_path, "train", "test"), channels=1, image_size=(8, 12))
    x, _ = data.test.tensors()
    assert x.shape == (12, 1, 8, 12)
    assert data.shape == (1, 8, 12)
    assert len(data.mean) == len(data.std) == 1


def test_names_that_are_no_text(tmp_path):
    write_tree(tmp_path, "train", "test")
    for split in ("train", "test"):
        folder = tmp_path / split
        (folder / "ant/0.png").rename(folder / "ant" / os.fsdecode(b"caf\xe9.png"))
        (folder / "ant").rename(folder / os.fsdecode(b"\xe4nt"))
    data = load(tmp_path)
    assert data.class_names == ("bee", r"\xe4nt")
    assert len(data.fingerprint) == 64
    assert len(data.test.tensors()[0]) == 12
    (tmp_path / "test" / os.fsdecode(b"\xe4nt/caf\xe9.png")).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(tmp_path).test.tensors()
    str(caught.value).encode()  # can be written anywhere
    assert r"caf\xe9.png" in str(caught.value)


def test_equal_names_and_sizes_but_other_pixels_are_another_set(tmp_path):
    for name, level in (("a", 0), ("b", 1)):
        write_tree(tmp_path / name, "train", "test")
        for split in ("train", "test"):
            # As .bmp, files of equal size whatever they show.
            image = Image.fromarray(np.full((8, 8, 3), 7, dtype=np.uint8))
            image.putpixel((4, 4), (level, 0, 0))
            image.save(tmp_path / name / split / "ant/x.bmp")
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert a.test.files == b.test.files
    assert a.fingerprint != b.fingerprint
    assert a.train_fingerprint != b.train_fingerprint
    assert load(tmp_path / "a", center_crop=0.5).fingerprint != a.fingerprint
    assert load(tmp_path / "a", interpolation="bicubic").fingerprint != a.fingerprint


def test_files_that_cannot_be_read_are_named(tmp_path):
    write_tree(tmp_path, "train", "test")
    (tmp_path / "test/ant/9.png").symlink_to("nothing")
    with pytest.raises(DataError, match=r"cannot read the image .*test/ant/9\.png"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_type(dtype):
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    split = TensorSplit(images, torch.tensor([0, 1, 2], dtype=dtype))
    assert split.labels.dtype == torch.int64
    assert split.fingerprint() == TensorSplit(images, torch.tensor([0, 1, 2])).fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 1, 8, 8), torch.arange(3), "images must be a uint8 tensor"),
        (torch.zeros(3, 8, 8).byte(), torch.arange(3), "images must be a uint8 tensor"),
        (np.zeros((3, 1, 8, 8), np.uint8), torch.arange(3), "given numpy.ndarray"),
        (torch.zeros(3, 1, 8, 8).byte(), torch.zeros(3), "labels must be integers"),
        (torch.zeros(3, 1, 8, 8).byte(), torch.zeros(3, 1).int(), "labels must be integers"),
        (torch.zeros(3, 1, 8, 8).byte(), [0, 1, 2], "given builtins.list"),
    ],
)
def test_what_is_neither_images_nor_labels_is_refused(images, labels, message):
    with pytest.raises(DataError, match=message):
        TensorSplit(images, labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_an_evaluation_takes_labels_of_any_integer_type(net, dtype):
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    specs, threat = parse_suite("clean,pgd-2"), Threat("Linf", 8 / 255)
    expected = evaluate(net, x, y, specs, threat)
    found = evaluate(net, x, y.to(dtype), specs, threat)
    assert torch.equal(found.worst_case, expected.worst_case)
    with pytest.raises(DataError, match="labels must be integers"):
        evaluate(net, x, y.float(), specs, threat)
