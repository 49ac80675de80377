"""Outputs are matched to classes by their names, where both are known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rpat_cli as rpat
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.by_name import in_order_of
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models.base import build_model
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import save_checkpoint


def saved(*names: str) -> SavedModel:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, len(names))).eval()
    architecture = Architecture("own", (1, 2, 2), len(names), (), ())
    return SavedModel(model, architecture, Path("x.pt"), 0, Recipe(), class_names=names)


@pytest.mark.parametrize(
    ("outputs", "classes", "order"),
    [
        (("a", "b", "c"), ("c", "a"), [2, 0, 1]),
        (("Great White", "tench", "cock"), ("great_white", "cock"), [0, 2, 1]),
        (("b", "a"), ("a", "b"), [1, 0]),
    ],
)
def test_the_outputs_come_in_the_order_of_the_classes(
    outputs: tuple[str, ...], classes: tuple[str, ...], order: list[int]
) -> None:
    before = saved(*outputs)
    after = in_order_of(before, classes)
    x = torch.rand(5, 1, 2, 2)
    assert torch.equal(after.model(x), before.model(x)[:, order])
    assert "by their names: output" in after.remarks[0]
    assert not after.model.training
    assert after.fingerprint() != before.fingerprint()


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        ((), ("a", "b")),
        (("a", "b", "c"), ("a", "b")),  # in order already
        (("a", "b"), ("a", "x")),
        (("crane", "crane", "b"), ("b", "crane")),
        (("a", "b"), ("a", "a")),
    ],
)
def test_otherwise_the_model_is_left_as_it_is(
    outputs: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    before = replace(saved("x", "y", "z"), class_names=outputs)
    architecture = replace(before.architecture, classes=max(1, len(outputs)))
    before = replace(before, architecture=architecture)
    assert in_order_of(before, classes) is before


def test_a_checkpoint_of_other_classes_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on three classes; the folder has two of them, in another order."""
    monkeypatch.chdir(tmp_path)
    source = np.random.default_rng(0)
    for name in ("ant", "bee"):
        Path("set/test", name).mkdir(parents=True)
        for number in range(10):
            pixels = source.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"set/test/{name}/{number}.png")
    model = build_model(
        "small-cnn", shape=(3, 16, 16), classes=3, mean=(0.5,) * 3, std=(0.25,) * 3
    ).eval()
    architecture = {"name": "small-cnn", "shape": [3, 16, 16], "classes": 3}
    data = {"name": "imagefolder", "root": str(tmp_path / "set"), "image_size": 16, "workers": 0}
    content: dict[str, Any] = {
        "recipe": {"model": "small-cnn", "data": data},
        "architecture": {**architecture, "mean": [0.5] * 3, "std": [0.25] * 3},
        "model": model.state_dict(),
        "class_names": ["bee", "wasp", "ant"],
        "epoch": 1,
    }
    save_checkpoint(Path("sent.pt"), content)
    evaluation, file = rpat.evaluate("sent.pt", "clean")
    x, y = rpat_images(tmp_path / "set")
    wanted = model(x)[:, [2, 0, 1]].argmax(1)
    assert torch.equal(evaluation.clean_predicted, wanted)
    assert evaluation.clean.value == (wanted == y).float().mean()
    assert (
        "output 2 is 'ant', and so on to output 0, 'bee'"
        in json.loads(file.read_text())["remarks"][0]
    )


def rpat_images(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from rpat_cli.data.load import load_dataset

    return load_dataset("imagefolder", root=root, val_size=None, image_size=16).test.tensors()
