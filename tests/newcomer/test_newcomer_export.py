"""Hand a model on, and load each of its files in the way that its card says: on every test image
it predicts the class that the run's evaluation has on record."""

import json
from pathlib import Path
from textwrap import indent

import pytest
import torch
from documented import block_of, rpat, script
from read_exports import classes, read_safetensors

from rpat_cli.data.base import Dataset

FORMATS = ("safetensors", "state-dict", "torch-export", "torchscript", "onnx")
LOADED = {
    "torch-export": ("torch.export.load(", "logits = model(x)"),
    "torchscript": ("torch.jit.load(", "logits = model(x)"),
    "onnx": ("onnxruntime.InferenceSession(", ""),
}
"""The programs: words of the card's block, and what a reader adds to get logits."""


@pytest.fixture(scope="module")
def folder(home: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("onnx", "onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("elsewhere") / "handed-on"
    formats = ",".join(FORMATS)
    rpat(home, "export", "pgd", "--format", formats, "--check", "all", "--out", folder)
    torch.save(data.test.tensors()[0], folder / "x.pt")
    return folder


@pytest.mark.slow
def test_programs_load_without_rpat(folder: Path, recorded: list[int]) -> None:
    """As the card says, and for any number of images."""
    card = (folder / "README.md").read_text()
    text = "import json, sys, torch\nimages = torch.load('x.pt')\nfound = {}\n"
    for name, (words, ending) in LOADED.items():
        text += f"found[{name!r}] = []\nfor x in (images[:1], images[:7], images):\n"
        text += indent(f"{block_of(card, words)}{ending}\n", "    ")
        text += f"    found[{name!r}] += logits.argmax(1).tolist()\n"
    text += "assert not {'rpat', 'rpat_cli'} & sys.modules.keys()\nprint(json.dumps(found))\n"
    found = json.loads(script(folder, text))
    expected = recorded[:1] + recorded[:7] + recorded
    assert {name: found[name] == expected for name in found} == dict.fromkeys(LOADED, True)


@pytest.mark.slow
def test_weights_are_what_the_formats_say(folder: Path, data: Dataset, recorded: list[int]) -> None:
    """Two files of the same weights, read by hand; the card's lines make a model of them."""
    by_hand = read_safetensors(folder / "model.safetensors")
    plain = torch.load(folder / "state_dict.pt", weights_only=True)
    assert by_hand.keys() == plain.keys()
    assert all(by_hand[name].equal(tensor) for name, tensor in plain.items())
    x, _ = data.test.tensors()
    assert classes(by_hand, x) == recorded
    card = (folder / "README.md").read_text()
    text = block_of(card, "load_file(") + block_of(card, "Architecture.from_dict(")
    text += "import torch\nprint(model(torch.load('x.pt')).argmax(1).tolist())\n"
    assert json.loads(script(folder, text)) == recorded


@pytest.mark.slow
def test_weights_are_evaluated_again(folder: Path, recorded: list[int]) -> None:
    given = ["--data", "fashion-mini", "--model", "small-cnn", "--attack", "clean", "--json-full"]
    record = json.loads(rpat(folder, "eval", "state_dict.pt", *given))
    assert record["clean_predicted"] == recorded
