"""Use what was trained: predict, and train in a loop of one's own."""

import json
from pathlib import Path

import pytest
from documented import block, rpat, script
from PIL import Image

from rpat_cli.data.base import Dataset
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.runs.build import build_data


@pytest.fixture(scope="module")
def data() -> Dataset:
    return build_data(DataSection(), 0, test_only=True)


def classes_of(run: Path) -> list[int]:
    """Of all test images, by the evaluation of the best epoch with which the training ended."""
    (file,) = run.glob("evals/best_Linf*.json")
    classes: list[int] = json.loads(file.read_text())["clean_predicted"]
    return classes


@pytest.mark.slow
def test_predict(home: Path, data: Dataset, tmp_path: Path) -> None:
    """Files of test images get the classes that the evaluation gave these."""
    x, _ = data.test.tensors()
    for i in range(20):
        pixels = x[i, 0].mul(255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    said = json.loads(rpat(home, "predict", "runs/pgd", tmp_path, "--top", "1", "--json"))
    classes = [each["guesses"][0]["label"] for each in said]
    expected = classes_of(home / "runs" / "pgd")
    assert classes == expected[:20]


@pytest.mark.slow
def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    """The block of the page learns, over all batches instead of three."""
    text = block("docs/python.md", "rpat.losses.trades(")
    text = text.replace("[:3]", "").replace("\nfor at", "\nlosses = []\nfor at")
    text = "import torch\ntorch.manual_seed(0)\n" + text
    text += "    losses.append(loss.item())\nprint([losses[0], losses[-1]])\n"
    first, last = json.loads(script(tmp_path, text))
    assert last < 0.95 * first
