"""What rpat hands to a model may be ruined by it: figures are those of an honest network, and the
caller's images stay as they are."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from toys import Honest

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.errors import DataError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite

MEAN, STD = 0.286, 0.353


def through_data(x: Tensor) -> Tensor:
    x.data.sub_(MEAN).div_(STD)
    return x


def in_place(x: Tensor) -> Tensor:
    return x.sub_(MEAN).div_(STD)


def clamped(x: Tensor) -> Tensor:
    x.data.clamp_(0.2, 0.8)
    return (x - MEAN) / STD


def out_of_place(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


class Ruining(nn.Module):
    """A network behind a normalization of its own."""

    def __init__(self, net: nn.Module, normalize: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.normalize = net, normalize

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.normalize(x))
        return logits


SUITES = ["clean", "noise", "fgsm", "pgd-3", "cw-pgd-3", "square", "autoattack:apgd-ce+square"]


@pytest.mark.parametrize("normalize", [through_data, in_place])
@pytest.mark.parametrize("suite", SUITES)
def test_a_model_that_normalizes_in_place_gets_the_figures_of_one_that_does_not(
    honest: Honest, suite: str, normalize: Callable[[Tensor], Tensor], small_budgets: None
) -> None:
    x, y = honest.x[:60].clone(), honest.y[:60]
    specs = parse_suite(suite)
    net = honest.model.net  # type: ignore[union-attr]
    result, expected = (
        evaluate(Ruining(net, each), x, y, specs, honest.threat, batch_size=30)  # type: ignore[arg-type]
        for each in (normalize, out_of_place)
    )
    assert torch.equal(x, honest.x[:60])
    assert result.clean.correct == expected.clean.correct
    assert torch.equal(result.results[0].correct_after, expected.results[0].correct_after)


@pytest.mark.parametrize("normalize", [through_data, in_place, clamped])
@pytest.mark.parametrize("name", ["noise", "fgsm", "bim", "pgd", "cw-pgd"])
def test_what_an_attack_returns_fools_in_a_recount(
    honest: Honest, name: str, normalize: Callable[[Tensor], Tensor]
) -> None:
    x, y = honest.x[:40].clone(), honest.y[:40]
    threat = Threat("Linf", 0.1)
    model = Ruining(honest.model.net, normalize)  # type: ignore[arg-type,union-attr]
    settings = {} if name in ("noise", "fgsm") else {"steps": 5}
    x_adv = ATTACKS[name](threat, **settings)(model, x, y)
    assert torch.equal(x, honest.x[:40])
    assert (x_adv - x).abs().max() <= 0.1 + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1


@pytest.mark.parametrize("normalize", [through_data, in_place])
def test_the_verdict_sees_the_images_as_they_are(
    honest: Honest, normalize: Callable[[Tensor], Tensor], small_budgets: None
) -> None:
    x, y = honest.x[:40].clone(), honest.y[:40]
    model = Ruining(honest.model.net, normalize)  # type: ignore[arg-type,union-attr]
    evidence = gather(model, x, y, honest.threat, square_queries=5, substitute_queries=50)
    assert torch.equal(x, honest.x[:40])
    assert evidence.pixels[1] <= 1
    assert torch.equal(evidence.logits, evidence.logits_again)


class Gray:
    """An attack that changes its arguments, or not."""

    def __init__(self, threat: Threat, in_place: bool = True) -> None:
        self.in_place = in_place

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if not self.in_place:
            return torch.full_like(x, 0.5)
        y.zero_()
        return x.fill_(0.5)


def test_an_attack_that_works_in_place_is_still_measured_against_the_images(
    honest: Honest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))
    ATTACKS.add("ruining", Gray)
    ATTACKS.add("gray", partial(Gray, in_place=False))
    x, y = honest.x[:40].clone(), honest.y[:40].clone()
    specs = parse_suite("ruining,gray")
    ruining, gray = evaluate(honest.model, x, y, specs, Threat("Linf", 0.1)).results
    assert torch.equal(x, honest.x[:40])
    assert torch.equal(y, honest.y[:40])
    assert torch.equal(ruining.correct_after, gray.correct_after)
    assert not gray.correct_after.all()


@pytest.mark.parametrize("scale", ["normalized", "bytes"])
@pytest.mark.parametrize("name", ["noise", "fgsm", "pgd", "cw-pgd", "mim", "zoo"])
def test_images_outside_of_0_to_1_are_refused_and_never_clipped(
    honest: Honest, name: str, scale: str
) -> None:
    x = honest.x[:4] * 255 if scale == "bytes" else (honest.x[:4] - MEAN) / STD
    settings = {} if name in ("noise", "fgsm", "zoo") else {"steps": 2}
    attack = ATTACKS[name](Threat("Linf", 0.1), **settings)
    with pytest.raises(DataError, match=r"takes pixels in \[0, 1\]"):
        attack(honest.model, x, honest.y[:4])
