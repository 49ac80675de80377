"""A run goes on with the images that it began with, and evaluates without its training images."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import rpat_cli as rpat
from rpat_cli.errors import DataError
from rpat_cli.recipe.layers import Layer
from rpat_cli.runs.resume import resume_run

TINY = {"method": "standard", "model": "small-cnn", "batch_size": 16, "eval": ["clean"]}


def write_tree(root):
    random = np.random.RandomState(0)
    for split in ("train", "test"):
        for number in range(2):
            folder = root / split / f"class{number}"
            folder.mkdir(parents=True)
            for k in range(10):
                pixels = random.randint(0, 60, (16, 16, 3)) + 120 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.bmp")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of one epoch, and the folder of its images."""
    root = tmp_path_factory.mktemp("images")
    write_tree(root / "set")
    data = {"name": "imagefolder", "root": str(root / "set"), "image_size": 16, "workers": 0}
    rpat.train(**TINY, epochs=1, data=data, out=root / "run")
    return root


def resumed(root, folder, data_root):
    shutil.copytree(root / "run", folder)
    changes = [Layer("test", {"epochs": 2, "data": {"root": str(data_root)}})]
    return resume_run(folder, changes=changes)


def test_other_pixels_under_the_same_names_are_refused(stopped, tmp_path):
    shutil.copytree(stopped / "set", tmp_path / "other")
    file = tmp_path / "other/train/class1/3.bmp"
    size = file.stat().st_size
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(file)
    assert file.stat().st_size == size
    with pytest.raises(DataError, match="was trained on other images so far"):
        resumed(stopped, tmp_path / "run", tmp_path / "other")


def test_the_same_images_at_another_place_are_the_same(stopped, tmp_path):
    shutil.copytree(stopped / "set", tmp_path / "moved")
    assert (
        resumed(stopped, tmp_path / "run", tmp_path / "moved").metrics.read_text().count("\n") == 2
    )


def test_checkpoints_that_do_not_tell_are_resumed(stopped, tmp_path):
    from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint

    shutil.copytree(stopped / "run", tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.pt"
    content = {key: value for key, value in load_checkpoint(last).items() if key != "checksum"}
    del content["images"]
    save_checkpoint(last, content)
    resume_run(tmp_path / "run", changes=[Layer("test", {"epochs": 2})])


def test_other_extra_images_are_refused(tmp_path):
    def write(level):
        images = np.full((20, 1, 28, 28), level, dtype=np.uint8)
        np.savez(tmp_path / "extra.npz", images=images, labels=np.arange(20) % 10)

    write(5)
    data = {"val_size": 1900, "extra": {"path": str(tmp_path / "extra.npz"), "share": 0.5}}
    rpat.train(**TINY, epochs=1, data=data, out=tmp_path / "run")
    write(6)
    with pytest.raises(DataError, match=r"other images so far than those that are at .*extra\.npz"):
        resume_run(tmp_path / "run", changes=[Layer("test", {"epochs": 2})])


def test_a_run_is_evaluated_without_its_training_images(stopped, tmp_path):
    shutil.copytree(stopped / "set/test", tmp_path / "only/validation")
    evaluation, _ = rpat.evaluate(
        stopped / "run", "clean", data={"root": str(tmp_path / "only"), "val_size": 5000}
    )
    assert evaluation.n == 20
    assert torch.equal(evaluation.y, torch.tensor([0] * 10 + [1] * 10))
