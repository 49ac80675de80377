"""Train on images, a network and a method of one's own, and in L2; measure and use the result."""

import json
from pathlib import Path

import pytest
from documented import QUICK, block, rpat
from PIL import Image

from rpat_cli.errors import ConfigError
from rpat_cli.models import MODELS

IMAGES = 12
TINY = (*QUICK[:4], "--val-size", "4", "--eval", "clean,pgd-2")


def write_images(folder: Path) -> None:
    """Two classes that anybody can tell: dark cats and red dogs."""
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for each in range(IMAGES):
            image = Image.new("RGB", (20, 30), (220 * number, 5 * each, 0))
            image.save(folder / name / f"{each}.png")


@pytest.mark.slow
@pytest.mark.parametrize("flat", [False, True], ids=["splits", "flat"])
def test_own_images(flat: bool, tmp_path: Path) -> None:
    for split in [""] if flat else ["train", "test"]:
        write_images(tmp_path / "photos" / split)
    data = ["--data", "imagefolder", "--data-root", "photos", "--image-size", "16"]
    if flat:
        data += ["--set", "data.test_size=0.5"]
    rpat(
        tmp_path,
        "train",
        *data,
        "--model",
        "small-cnn",
        *TINY,
        "--epochs",
        "3",
        "--out",
        "runs/photos",
    )
    results = json.loads((tmp_path / "runs" / "photos" / "report.json").read_text())["results"]
    assert {each["n"] for each in results} == {IMAGES if flat else 2 * IMAGES}
    said = json.loads(rpat(tmp_path, "predict", "last", "photos", "--top", "1", "--json"))
    assert len(said) == 2 * IMAGES * (1 if flat else 2)


@pytest.mark.slow
def test_own_network(tmp_path: Path) -> None:
    """One that trains as a plugin, and one that is measured as it is."""
    plugin = block("docs/tutorials/your-own.md", 'MODELS.add("wide"')
    (tmp_path / "wide.py").write_text(plugin)
    rpat(tmp_path, "train", "--plugin", "wide.py", "--model", "wide", *QUICK, "--out", "runs/wide")
    record = json.loads(
        rpat(tmp_path, "eval", "wide", "--plugin", "wide.py", "--attack", "clean,pgd-2", "--json")
    )
    assert record["n"] == 500
    assert record["clean_acc"] > 0.2


def test_a_file_where_a_name_is_wanted() -> None:
    """`rpat eval my.py:build` works; for a training the message says what does."""
    with pytest.raises(ConfigError, match="To use your own model, .* --plugin FILE.py"):
        MODELS["my.py:build"]


@pytest.mark.slow
def test_own_network_measured(tmp_path: Path) -> None:
    """A linear network that says class 3 to everything: right where y is 3, attacked or not."""
    (tmp_path / "my.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "\n"
        "def build():\n"
        "    linear = nn.Linear(784, 10)\n"
        "    with torch.no_grad():\n"
        "        linear.weight.zero_()\n"
        "        linear.bias.copy_(5.0 * (torch.arange(10) == 3))\n"
        "    return nn.Sequential(nn.Flatten(), linear)\n"
    )
    words = ["--model-file", "my.py:build", "--data", "fashion-mini", "--attack", "clean,pgd-2"]
    record = json.loads(rpat(tmp_path, "eval", *words, "--json"))
    assert (record["clean_acc"], record["robust_acc"]) == (0.1, 0.1)


@pytest.mark.slow
def test_own_method(tmp_path: Path) -> None:
    (tmp_path / "pairing.py").write_text(block("docs/methods.md", 'METHODS.add("pairing"'))
    own = ["--plugin", "pairing.py", "--method", "pairing", "--set", "method.weight=1", "--ra"]
    rpat(tmp_path, "train", *own, *QUICK, "--out", "runs/pairing")
    (epoch,) = map(json.loads, (tmp_path / "runs/pairing/metrics.jsonl").read_text().splitlines())
    assert {"ce", "pairing", "ra"} <= epoch["train"].keys()


@pytest.mark.slow
def test_l2(tmp_path: Path) -> None:
    rpat(tmp_path, "train", "--norm", "L2", "--eps", "128/255", *QUICK, "--out", "runs/l2")
    report = json.loads((tmp_path / "runs" / "l2" / "report.json").read_text())
    (file, *_) = (tmp_path / "runs" / "l2" / "evals").glob("*.json")
    record = json.loads(file.read_text())
    (attack,) = [each for each in record["results"] if each["label"] == "pgd-2"]
    assert record["threat"] == attack["threat"] == {"norm": "L2", "eps": 128 / 255}
    broken = [each for each in attack["distance"] if each is not None]
    assert broken
    assert max(broken) <= 128 / 255 * (1 + 1e-4)
    assert report["results"]
