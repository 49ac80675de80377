"""Use what was trained: predict, and attack and train on tensors."""

import json
from pathlib import Path

import pytest
from documented import block, rpat, script
from PIL import Image

from rpat_cli.data.base import Dataset


@pytest.mark.slow
def test_predict(home: Path, data: Dataset, recorded: list[int], tmp_path: Path) -> None:
    """Files of test images get the classes that the evaluation gave these."""
    x, _ = data.test.tensors()
    for i in range(20):
        pixels = x[i, 0].mul(255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    said = json.loads(rpat(home, "predict", "runs/pgd", tmp_path, "--top", "1", "--json"))
    classes = [each["guesses"][0]["label"] for each in said]
    assert classes == recorded[:20]


@pytest.mark.slow
def test_autoattack_on_tensors(home: Path) -> None:
    """The block of the page, on the trained model: all is inside the threat, and AutoAttack leaves
    no image that PGD had broken."""
    text = block("docs/python.md", "rpat.attacks.AutoAttack(")
    made = 'rpat.models.build("small-cnn", "fashion-mini").eval()'
    assert made in text
    text = text.replace(made, 'rpat.load_model("runs/pgd")').replace("[:20]", "[:10]")
    text = text.replace("x_adv = rpat.attacks.", "found = []\nx_adv = rpat.attacks.", 1)
    text = text.replace("(model, x, y)\n", "(model, x, y); found.append(x_adv)\n")
    text += (
        "pgd, autoattack, l2 = found\n"
        "for each in (pgd, autoattack):\n"
        "    assert (each - x).abs().max() <= 0.1 + 1e-6 and 0 <= each.min() and each.max() <= 1\n"
        "assert (l2 - x).flatten(1).norm(dim=1).max() <= 1.5 + 1e-4\n"
        "print([(model(each).argmax(1) == y).int().tolist() for each in (x, pgd, autoattack)])\n"
    )
    clean, pgd, autoattack = json.loads(script(home, text))
    assert sum(clean) > sum(autoattack)
    assert not any(left and not before for left, before in zip(autoattack, pgd, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("words", ["rpat.losses.trades(", "attack(model, x[at], y[at])"])
def test_a_loop_of_ones_own(words: str, tmp_path: Path) -> None:
    """The blocks of the page (TRADES, PGD) learn, over all batches instead of three."""
    text = block("docs/python.md", words)
    text = text.replace("[:3]", "").replace("\nfor at", "\nlosses = []\nfor at")
    text = "import torch\ntorch.manual_seed(0)\n" + text
    text += "    losses.append(loss.item())\nprint([losses[0], losses[-1]])\n"
    first, last = json.loads(script(tmp_path, text))
    assert last < 0.95 * first
