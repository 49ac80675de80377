"""Attacks that only measure: foolbox's for the smallest perturbation, and ZOO."""

import sys

import pytest
import torch
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.minimum_norm import DECISION_BASED
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, MissingExtraError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.passes import count_passes

STEPS = {"cw-l2": 200, "ddn": 60, "fmn": 60, "hopskipjump": 8, "boundary": 400}

PAIRS = [(name, norm) for name in STEPS for norm in ATTACKS[name].norms]


class Halves(nn.Module):
    """Two classes, told apart by whether the 16 pixels are brighter than one half on average.

    Bent a little: on a linear model FMN's first step ends on the boundary itself, where a tie is
    called class 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        lead = 5 * torch.tanh(4 * (x.flatten(1).mean(dim=1) - 0.5))
        return torch.stack([lead, -lead], dim=1)


def halves() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The model, images, labels, and by how much every pixel has to change: a shift d costs d in
    Linf, 4 d in L2."""
    shift = torch.tensor([0.02, 0.05, 0.1, 0.2, -0.02, -0.05, -0.1, -0.2])
    x = (0.5 + shift).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Halves(), x, (shift < 0).long(), shift.abs()


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_what_lies_within_the_radius_is_found_and_nothing_else(name: str, norm: str) -> None:
    model, x, y, shift = halves()
    threat = Threat(norm, 0.07 * {"Linf": 1, "L2": 4, "L1": 16}[norm])
    x_adv = ATTACKS[name](threat, steps=STEPS[name])(model, x, y)
    broken = model(x_adv).argmax(dim=1) != y
    assert broken.tolist() == (shift < 0.07).tolist()
    assert threat.contains(x, x_adv).all()
    assert torch.equal(x_adv[~broken], x[~broken])


@pytest.mark.parametrize("name", [*STEPS, "zoo"])
def test_the_model_comes_out_as_it_went_in(
    name: str, net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    net(batch[0]).square().mean().backward()
    before = snapshot(net)
    budget = {"queries": 600} if name == "zoo" else {"steps": 3}
    x_adv = ATTACKS[name](Threat("L2", 1.0), **budget)(net, *batch)
    assert_same(before, snapshot(net))
    assert not x_adv.requires_grad


@pytest.mark.parametrize("name", DECISION_BASED)
def test_a_model_of_one_class_leaves_nowhere_to_begin(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(
        ATTACKS[name](Threat("L2", 1.0), steps=2)(model, x, torch.zeros(3, dtype=torch.long)), x
    )


@pytest.mark.parametrize(
    ("name", "norm"),
    [("cw-l2", "Linf"), ("ddn", "L1"), ("boundary", "Linf"), ("hopskipjump", "L1")],
)
def test_a_norm_that_an_attack_does_not_minimise_is_refused(name: str, norm: str) -> None:
    with pytest.raises(ConfigError, match=rf"in {norm} is undefined. Use --norm"):
        ATTACKS[name](Threat(norm, 0.1))


def test_a_missing_foolbox_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rpat\[attacks\]'"):
        ATTACKS["fmn"](Threat("L2", 0.1))


@pytest.mark.parametrize(("norm", "size"), [("Linf", 1), ("L2", 4), ("L1", 16)])
def test_zoo_finds_the_way_without_a_gradient(norm: str, size: int) -> None:
    model, x, y, shift = halves()
    with count_passes(model) as passes:
        x_adv = ATTACKS["zoo"](Threat(norm, 0.07 * size), queries=1000, coordinates=16)(model, x, y)
    assert passes.backward == 0
    assert (model(x_adv).argmax(dim=1) != y).tolist() == (shift < 0.07).tolist()
    assert Threat(norm, 0.07 * size).contains(x, x_adv).all()


def test_zoo_keeps_its_budget_of_queries() -> None:
    model, x, y, _ = halves()
    with count_passes(model) as passes:
        ATTACKS["zoo"](Threat("Linf", 0.001), queries=100, coordinates=7)(model, x, y)
    assert 90 <= passes.forward_samples / len(x) <= 100
    with pytest.raises(ConfigError, match="less than one step"):
        ATTACKS["zoo"](Threat("Linf", 0.1), queries=100)


def test_evaluation_takes_them_like_any_other_attack() -> None:
    model, x, y, shift = halves()
    evaluation = evaluate(
        model, x, y, parse_suite("pgd-5,ddn-60,fmn-60,zoo-600"), Threat("L2", 0.28)
    )
    for label in ("ddn-60", "fmn-60", "zoo-600"):
        assert evaluation[label].correct_after.tolist() == (shift > 0.07).tolist()
    nearest = evaluation["ddn-60"].distance
    assert torch.allclose(nearest[shift < 0.07], 4 * shift[shift < 0.07], atol=0.02)
