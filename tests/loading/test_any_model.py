"""`rpat eval` on models that are unlike a well-trained ten-class network: cut off, or with few or
many classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.suite import list_attacks, parse_suite
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.trust import trusting
from rpat_cli.reports.terminal import evaluation_remarks
from rpat_cli.runs.evaluate import EvalOptions, eval_run


class Detached(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits


def attack(toy: Any, text: str, norm: str = "Linf", eps: float = 0.1) -> Evaluation:
    return evaluate(
        Detached(toy.model),
        toy.x[:20],
        toy.y[:20],
        parse_suite(text),
        Threat(norm, eps),
        batch_size=20,
    )


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize(
    "word", ["fgsm", "bim-2", "mim-2", "pgd-2x2", "cw-pgd-2", "apgd-ce", "apgd-t", "fab", "fab-t"]
)
def test_without_a_gradient_an_attack_that_follows_one_breaks_nothing_and_says_why(
    toy: Any, word: str
) -> None:
    evaluation = attack(toy, word, eps=0.4)
    (result,) = evaluation.results
    assert result.robust_acc == evaluation.clean.value > 0.5
    assert result.flags[0].startswith("no gradient reaches the input: the model cuts it off")
    assert any(
        f"{word}: no gradient reaches" in remark for remark in evaluation_remarks(evaluation)
    )


@pytest.mark.parametrize("word", ["cw-l2-2", "ddn-2", "fmn-2"])
def test_neither_do_the_searches_for_the_smallest_perturbation(toy: Any, word: str) -> None:
    pytest.importorskip("foolbox")
    evaluation = attack(toy, word, "L2", 2.0)
    assert evaluation.robust.value == evaluation.clean.value
    assert "no gradient reaches" in evaluation.results[0].flags[0]


@pytest.mark.usefixtures("small_budgets")
def test_what_needs_no_gradient_goes_on_as_ever(toy: Any) -> None:
    plain = parse_suite("noise,square")
    honest = evaluate(toy.model, toy.x[:20], toy.y[:20], plain, Threat("Linf", 0.4), batch_size=20)
    cut = attack(toy, "noise,square", eps=0.4)
    for label in ("noise", "square"):
        assert torch.equal(cut[label].correct_after, honest[label].correct_after)
        assert not any("no gradient" in flag for flag in cut[label].flags)
    assert cut["square"].robust_acc < cut.clean.value
    whole = attack(toy, "autoattack", eps=0.4)["autoattack"]
    assert "so apgd-ce, apgd-t, fab-t could not take a step" in whole.flags[0]
    assert [stage.broken for stage in whole.stages[:3]] == [0, 0, 0]
    assert whole.stages[3].name == "square"
    assert whole.stages[3].broken > 0


def test_the_list_of_those_that_follow_a_gradient_knows_every_word() -> None:
    without = {"clean", "noise", "square", "hopskipjump", "boundary", "zoo", "transfer"}
    without |= {"file", "audit"}
    words = [
        word
        for word in list_attacks()
        if not word.startswith("autoattack") and "transfer:" not in word
    ]
    names = {spec.name for word in words for spec in parse_suite(word)} - {"autoattack"}
    assert names - without == {name for name in names if ATTACKS[name].follows_gradient}


NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")

MODEL = """
import torch
from torch import nn

class Red(nn.Module):
    def forward(self, x):
        red, classes = 255 * x[:, 0].mean(dim=(1, 2)), torch.arange({classes}.0)
        return (2 * red[:, None] * classes - classes**2) / 100

def build():
    return Red()
"""
"""The class is the one that comes nearest to the redness of the image: right by half a level of
255."""


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize(
    ("classes", "left_out"),
    [
        (
            2,
            [
                "apgd-dlr left out: it needs at least 3 classes",
                "apgd-t left out: it needs at least 4 classes",
            ],
        ),
        (3, ["apgd-t left out: it needs at least 4 classes, the model has 3"]),
        (10, []),
        (200, []),
    ],
)
def test_any_number_of_classes_works_or_says_what_is_undefined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, left_out: list[str]
) -> None:
    """A folder of images, a model from a file, and AutoAttack with the attacks of both of its
    standard lists."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 2), ("test", max(1, 20 // classes))):
        for number in range(classes):
            folder = tmp_path / "images" / split / f"class{number:03}"
            folder.mkdir(parents=True)
            for which in range(count):
                Image.new("RGB", (8, 8), (number, 40 * which, 200)).save(folder / f"{which}.png")
    (tmp_path / "my.py").write_text(MODEL.format(classes=classes))
    data = {"name": "imagefolder", "root": "images", "image_size": 8, "val_size": 0.1, "workers": 0}
    with trusting(files=["my.py"]):
        evaluation, file = eval_run(
            Path("my.py:build"),
            parse_suite(f"pgd-2,autoattack:{'+'.join(NAMES)}"),
            changes=[Layer("test", {"data": data, "threat": {"eps": "0.4/255"}})],
            options=EvalOptions(limit=20, batch_size=20),
        )
    assert file.exists()
    assert evaluation.n == (18 if classes == 3 else 20)
    assert evaluation.clean.value == evaluation.robust.value == 1.0
    notes = [
        note for note in evaluation["autoattack:" + "+".join(NAMES)].notes if "left out" in note
    ]
    assert len(notes) == len(left_out)
    assert all(any(name in note for note in notes) for name in left_out)
    undefined = {note.split()[0] for note in notes}
    stages = evaluation["autoattack:" + "+".join(NAMES)].stages
    assert [stage.name for stage in stages] == [name for name in NAMES if name not in undefined]
    assert {stage.attacked for stage in stages} == {evaluation.n}
