"""A radius or a step that no two images have between them was meant in 255ths: it is refused in
training and evaluation alike, and one that leads out of any ball is remarked on."""

from typing import Any

import pytest
import torch
from helpers import load_recipe, tiny_net

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.mistakes import doubts

PIXELS = 3 * 8 * 8
IMPOSSIBLE = [("Linf", 8.0), ("L2", 14.0), ("L1", 2000.0)]


def measured(norm: str, eps: float, suite: Any = "fgsm") -> Any:
    specs = parse_suite(suite)
    net = tiny_net().eval()
    return evaluate(net, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), specs, Threat(norm, eps))


@pytest.mark.parametrize(("norm", "eps"), IMPOSSIBLE)
def test_evaluation_refuses_the_radius(norm: str, eps: float) -> None:
    with pytest.raises(ConfigError, match=f"eps: {eps:g}: must be at most .*{eps:g}/255"):
        measured(norm, eps)
    largest = {"Linf": 1.0, "L2": PIXELS**0.5, "L1": float(PIXELS)}[norm]
    assert measured(norm, largest).n == 2


@pytest.mark.parametrize(("norm", "step"), IMPOSSIBLE)
def test_evaluation_refuses_the_step(norm: str, step: float) -> None:
    suite = [{"attack": "pgd", "steps": 1, "step_size": step}]
    with pytest.raises(ConfigError, match=f"pgd-1.*step_size: {step:g}: must be at most"):
        measured(norm, 0.5, suite)


def test_a_step_out_of_the_ball_is_a_note() -> None:
    result = measured("L2", 0.5, [{"attack": "pgd", "steps": 1, "step_size": 2.0}]).results[0]
    assert "longer than the ball is wide (2 eps = 1): did you mean 2/255?" in result.notes[0]
    fine = measured("L2", 0.5, [{"attack": "pgd", "steps": 1, "step_size": 1.0}]).results[0]
    assert fine.notes == ()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["threat.norm=L2", "threat.eps=128"], "threat.eps: 128: must be at most 55.43 in L2"),
        (["threat.norm=L1", "threat.eps=20000"], "threat.eps: 20000: must be at most 3072 in L1"),
        (["threat.norm=L2", "attack.step_size=60"], "attack.step_size: 60: must be at most 55.43"),
        (["attack.step_size=2"], "attack.step_size: 2: must be at most 1 in Linf"),
        (["threat.eps=8"], "must be at most 1 in Linf"),
        (
            ["threat.norm=L2", "attack.strong.from_epoch=1", "attack.strong.eps=160"],
            "attack.strong.eps: 160: must be at most 55.43",
        ),
        (["attack.strong.from_epoch=1", "attack.strong.eps=10"], "attack.strong.eps: 10: must be"),
    ],
)
def test_recipes_refuse_them(keys: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(assignments=["data=cifar10", *keys])


def test_the_bound_follows_the_images() -> None:
    small = ["data=fashion-mini", "threat.norm=L2", "threat.eps=30"]
    with pytest.raises(ConfigError, match="must be at most 28"):
        load_recipe(assignments=small)
    large = ["data=imagefolder", "data.image_size=224", "threat.norm=L2", "threat.eps=30"]
    assert load_recipe(assignments=large).threat.eps == 30


def test_recipes_are_remarked_on() -> None:
    keys = ["threat.norm=L2", "threat.eps=0.5", "attack.step_size=2"]
    assert "did you mean 2/255" in doubts(load_recipe(assignments=keys))[0]
    assert doubts(load_recipe()) == []
