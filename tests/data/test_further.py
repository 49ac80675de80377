"""Further test images: of the data set's classes, from a folder or from files of arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rpat_cli as rpat
from rpat_cli.data import DATASETS
from rpat_cli.data.base import LoadOptions
from rpat_cli.data.further import load_further
from rpat_cli.data.load import load_dataset
from rpat_cli.errors import ConfigError, DataError

NAMES = DATASETS["fashion-mini"].load(LoadOptions(Path())).class_names


def loaded(path: Path) -> tuple[Tensor, Tensor]:
    data = load_dataset("fashion-mini", root=".", val_size=None, test_data=str(path))
    assert data.class_names == NAMES
    assert data.name == f"fashion-mini: {path.name}"
    return data.test.tensors()


def picture(folder: Path, name: str, value: int, side: int = 28) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(folder / name)


@pytest.mark.parametrize("inner", ["", "test"])
def test_a_folder_of_some_of_the_classes(tmp_path: Path, inner: str) -> None:
    picture(tmp_path / inner / NAMES[7].lower(), "a.png", 51)
    picture(tmp_path / inner / "2", "b.png", 102, side=40)
    x, y = loaded(tmp_path)
    assert x.shape == (2, 1, 28, 28)
    assert sorted(zip(y.tolist(), x.mean((1, 2, 3)).tolist(), strict=True)) == [
        (2, pytest.approx(0.4)),
        (7, pytest.approx(0.2)),
    ]


def test_numbers_that_classes_are_called_by_are_their_names(tmp_path: Path) -> None:
    for name, value in {"1": 10, "3": 30}.items():
        picture(tmp_path / name, "a.png", value)
    test = load_further(tmp_path, (1, 28, 28), ("1", "2", "3"), LoadOptions(Path()))
    x, y = test.tensors()
    values = (255 * x.mean((1, 2, 3))).round().int().tolist()
    assert dict(zip(y.tolist(), values, strict=True)) == {0: 10, 2: 30}


def test_arrays_as_cifar_10_1_names_them(tmp_path: Path) -> None:
    images = np.arange(3 * 784, dtype=np.uint64).reshape(3, 28, 28, 1).astype(np.uint8)
    np.save(tmp_path / "new_v6_data.npy", images)
    np.save(tmp_path / "new_v6_labels.npy", np.array([9, 0, 4], np.int32))
    np.savez(tmp_path / "same.npz", images=images, labels=[9, 0, 4])
    for name in ("new_v6_data.npy", "same.npz"):
        x, y = loaded(tmp_path / name)
        assert torch.equal((x * 255).round().to(torch.uint8)[:, 0], torch.tensor(images)[..., 0])
        assert y.tolist() == [9, 0, 4]


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test images .*none\.npz"):
        loaded(tmp_path / "none.npz")
    picture(tmp_path / "set/Whale", "a.png", 5)
    with pytest.raises(DataError, match=r"no class of the data set: Whale\. Its classes: T-shirt"):
        loaded(tmp_path / "set")
    picture(tmp_path / "twice/bag", "a.png", 5)
    picture(tmp_path / "twice/8", "a.png", 5)
    with pytest.raises(DataError, match="two folders of one class"):
        loaded(tmp_path / "twice")
    with pytest.raises(ConfigError, match=r"data\.test_data: is for evaluations"):
        load_dataset("fashion-mini", root=".", val_size=100, test_data="x.npz")


def test_an_evaluation_is_recorded_as_one_on_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run's report would take it for the figures on the data set's own images."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "ood/Bag", "a.png", 5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    evaluation, file = rpat.evaluate(
        model, "clean", data={"name": "fashion-mini", "test_data": "ood"}
    )
    assert evaluation.y.tolist() == [NAMES.index("Bag")]
    assert json.loads(file.read_text())["data"]["name"] == "fashion-mini: ood"
