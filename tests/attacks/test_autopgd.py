"""AutoPGD against the library's, image by image from the same starts, and what is ours alone."""

from typing import Any

import pytest
import torch
from helpers import load_recipe, tiny_net
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.autopgd import AutoPGD
from rpat_cli.attacks.losses import INNER_LOSSES, TARGETED_LOSSES, dlr_loss, targeted_dlr
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.passes import count_passes
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.build import build_attack, build_threat

EPS = {"Linf": 0.06, "L2": 0.4, "L1": 1.5}


ROUNDED = {"L1": 2}
"""Images of 48 whose flag may depend on how a sum is rounded: in L1 the library differs from itself
by as many between two processors, since its sparsity counts pixels that miss those of the clean
image by a rounding. The library computes in float32 alone."""


@pytest.mark.parametrize("word", ["apgd-ce", "apgd-dlr", "apgd-t"])
@pytest.mark.parametrize("norm", EPS)
def test_flags_are_the_librarys_and_passes_fewer(toy: Any, norm: str, word: str) -> None:
    """Images that are broken leave the batch, so that their later passes are saved."""
    threat, steps, targets = Threat(norm, EPS[norm]), 30, 3
    right = toy.model(toy.x).argmax(1) == toy.y
    x, y = toy.x[right], toy.y[right]
    published: dict[str, Any] = {"norm": norm, "eps": EPS[norm], "n_iter": steps, "seed": 0}
    published |= {"use_largereps": norm == "L1", "device": x.device}
    if word == "apgd-t":
        library = APGDAttack_targeted(toy.model, n_target_classes=targets, **published)
        own = ATTACKS[word](threat, steps=steps, targets=targets)
    else:
        loss = word.removeprefix("apgd-")
        library = APGDAttack(toy.model, loss=loss, **published)
        own = ATTACKS[word](threat, steps=steps)
    with frozen(toy.model), own_randomness(x.device), count_passes(toy.model) as theirs:
        x_theirs = library.perturb(x.clone(), y.clone())
    with frozen(toy.model), own_randomness(x.device, 0), count_passes(toy.model) as ours:
        x_ours = own(toy.model, x, y)
    flags, known = (toy.model(each).argmax(1) == y for each in (x_ours, x_theirs))
    assert (flags != known).sum() <= ROUNDED.get(norm, 0)
    assert 0.05 < flags.float().mean() < 0.95
    assert threat.contains(x, x_ours).all()
    assert ours.forward_samples < theirs.forward_samples
    assert ours.backward_samples < theirs.backward_samples


def test_an_image_that_resists_costs_a_forward_pass_more_than_steps() -> None:
    model, x = tiny_net().eval(), torch.rand(3, 3, 8, 8)
    with count_passes(model) as passes:
        AutoPGD(Threat("Linf", 1e-9), steps=7)(model, x, model(x).argmax(1))
    assert (passes.forward, passes.backward) == (9, 7)  # one of them is ours, above


class Linear(nn.Module):
    """Two classes, of which the margin is w·x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) @ self.w
        return torch.stack([z, -z], dim=1) / 2


@pytest.mark.parametrize("norm", EPS)
def test_training_finds_the_worst_case_of_a_linear_model(norm: str) -> None:
    model, threat = Linear(), Threat(norm, EPS[norm])
    x = torch.full((2, 1, 8, 8), 0.5)  # the ball lies in the box, but for the L1 ball's corners
    y = torch.tensor([0, 1])
    attack = ATTACKS["apgd"].for_training(threat, {"steps": 60, "start": "uniform"})
    x_adv = attack(model, x, y)
    w = model.w.detach()
    order = w.abs().sort(descending=True).values
    full = int(EPS["L1"] / 0.5)  # as many pixels reach 0 or 1
    fall = {
        "Linf": threat.eps * w.abs().sum(),
        "L2": threat.eps * w.norm(),
        "L1": 0.5 * order[:full].sum() + (EPS["L1"] - 0.5 * full) * order[full],
    }[norm]
    sign = torch.tensor([-1.0, 1.0])
    reached = sign * ((x_adv - x).flatten(1) @ w)
    torch.testing.assert_close(reached, fall.expand(2), rtol=0.02, atol=0)


def test_losses_of_few_classes_are_defined_and_said() -> None:
    two, three = torch.tensor([[2.0, 0.5]]), torch.tensor([[2.0, 0.5, 1.0]])
    y = torch.tensor([0])
    assert dlr_loss(two, y).item() == INNER_LOSSES["margin"](two, y).item() == -1.5
    assert dlr_loss(three, y).item() == pytest.approx(-1 / 1.5)
    target = torch.tensor([1])
    assert targeted_dlr(three, y, target).item() == -1.5
    four = torch.tensor([[2.0, 0.5, 1.0, 0.0]])
    assert targeted_dlr(four, y, target).item() == pytest.approx(-1.5 / (2 - 0.25))
    model, x = tiny_net(classes=3).eval(), torch.rand(6, 3, 8, 8)
    suite = parse_suite("apgd-dlr-2,apgd-t-2,malt@steps=2,mm-9,a3-2,pma-4")
    results = evaluate(model, x, model(x).argmax(1), suite, Threat("Linf", 0.1)).results
    notes = {result.name: result.notes for result in results}
    assert notes.pop("apgd-t") == notes.pop("malt")
    assert not any(notes.values())
    binary = tiny_net(classes=2).eval()
    (result,) = evaluate(binary, x, binary(x).argmax(1), suite[:1], Threat("Linf", 0.1)).results
    assert "DLR loss needs at least 3 classes, the model has 2: the margin loss" in result.notes[0]


class Overflowing(nn.Module):
    """Logits that are saturated, infinite or not a number away from the clean image."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.net, self.value = tiny_net(), value

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        bright = (x.flatten(1).mean(1) > 0.5)[:, None]
        return torch.where(bright, logits * self.value, logits * 1e30)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("loss", [*INNER_LOSSES, "targeted"])
def test_logits_without_a_value_do_no_harm(loss: str, value: float) -> None:
    model, x = Overflowing(value).eval(), torch.rand(8, 3, 8, 8)
    y, threat = model(x).argmax(1), Threat("Linf", 0.1)
    name = "apgd-t" if loss == "targeted" else "apgd"
    settings = {} if loss == "targeted" else {"loss": loss}
    x_adv = ATTACKS[name](threat, steps=3, **settings)(model, x, y)
    assert x_adv.isfinite().all()
    assert threat.contains(x, x_adv).all()
    assert set(TARGETED_LOSSES) == set(INNER_LOSSES)


def test_mistakes_come_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        AutoPGD(Threat("Linf", 0.1), loss="drl", start="corner", eot=0)
    text = str(error.value)
    assert "Did you mean 'dlr'?" in text
    assert "'corner' is none of uniform, " in text
    assert "must be at least 1, given 0" in text


def test_a_recipe_takes_it_and_reads_it_back() -> None:
    recipe = load_recipe(assignments=["attack.name=apgd", "method=trades"])
    assert (recipe.attack.start, recipe.attack.steps) == ("boundary", 10)
    again = Recipe.model_validate(recipe.model_dump())  # as a resume does
    attack = build_attack(again.attack, build_threat(again))
    assert (attack.keep, attack.steps, attack.large_radii) == ("loss", 10, False)
