"""The checks for gradients that mislead, and the attack that a verdict names, on evidence that is
known."""

import math
from dataclasses import replace

import pytest
import torch
from replicas import Detached, MeanSparse, Quantized, Scaled, Shattering
from test_verdict import breaking, seen
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.checks import (
    check_batch,
    check_black_box,
    check_one_step,
    check_slopes,
    check_stand_in,
)
from rpat_cli.diagnostics.verdict.evidence import EOT, STAND_IN, Evidence
from rpat_cli.diagnostics.verdict.slopes import Slopes, slopes_at
from rpat_cli.diagnostics.verdict.stand_ins import passed_by
from rpat_cli.diagnostics.verdict.strongest import strongest, words
from rpat_cli.diagnostics.verdict.verdict import Verdict, judge


def also(evidence: Evidence, name: str, count: int, first: int = 0) -> Evidence:
    """The same, with `count` images from the `first` on broken by another attack."""
    at = torch.arange(500)
    flags = (at >= first) & (at < first + count)
    return replace(evidence, broken={**evidence.broken, name: flags})


def test_pgd_on_the_margin_is_white_box() -> None:
    """Square breaks ten images that APGD leaves: with PGD on the margin, so does the gradient."""
    by_square = breaking(seen(), square=slice(0, 10))
    assert check_black_box(by_square)[0] == "FAIL"
    assert check_black_box(also(by_square, "cw-pgd", 10))[0] == "PASS"
    assert check_black_box(also(by_square, "cw-pgd", 10, first=10))[0] == "PASS"


@pytest.mark.parametrize(("only", "level"), [(6, "PASS"), (7, "WARN"), (10, "FAIL")])
def test_a_stand_in_may_not_do_better_than_the_gradient(only: int, level: str) -> None:
    own = breaking(seen(stand_ins=("Sparse",)), pgd_50=slice(0, 50))
    assert check_stand_in(own)[0] == "PASS"
    found, reason = check_stand_in(also(own, STAND_IN, 50 + only))
    assert found == level
    assert (level == "PASS") != ("in place of the gradient of Sparse" in reason)


@pytest.mark.parametrize(
    ("survive", "then_broken", "level"),
    [(400, 390, "WARN"), (400, 210, "PASS"), (260, 255, "PASS"), (400, 60, "PASS")],
)
def test_one_step_that_most_survive_and_many_steps_that_few_do(
    survive: int, then_broken: int, level: str
) -> None:
    evidence = breaking(
        seen(), fgsm=slice(0, 500 - survive), pgd_50=slice(0, 500 - survive + then_broken)
    )
    assert check_one_step(evidence)[0] == level


@pytest.mark.parametrize(
    ("wrong", "level"), [(0, "PASS"), (33, "PASS"), (40, "WARN"), (200, "WARN"), (300, "FAIL")]
)
def test_slopes_are_judged_by_the_share_of_images(wrong: int, level: str) -> None:
    """The lower ends of the intervals of 33 and 40 of 500 are on either side of 5 %."""
    measured = torch.ones(500)
    measured[:wrong] = 0.4
    slopes = Slopes(torch.ones(500), measured, torch.full((500,), 1e-5))
    assert check_slopes(seen(slopes=slopes))[0] == level
    assert not Slopes(measured, measured * 0.4, torch.ones(500)).apart.any()  # all of it rounding


def test_slopes_of_a_linear_model_are_exact_and_those_of_a_ripple_wrong() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 5
    for threat in (Threat("Linf", 0.03), Threat("L2", 0.5), Threat("L1", 5.0)):
        right = slopes_at(linear, x, y, threat)
        close = torch.isclose(right.predicted, right.measured, rtol=1e-2, atol=1e-6)
        assert (close | right.apart.logical_not()).all()
        assert not right.apart.any()
    rippling = nn.Sequential(Shattering(), linear)
    assert slopes_at(rippling, x, y, Threat("Linf", 0.03)).apart.sum() >= 15
    cut = nn.Sequential(Detached(), linear)
    assert slopes_at(cut, x, y, Threat("Linf", 0.03)).predicted.abs().max() == 0


class Halved(nn.Module):
    """Keeps the shape, but only here."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 if x.ndim == 4 else x[:, : x.shape[1] // 2]


class Unchanged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_what_could_be_passed_by() -> None:
    """Own modules without weights whose backward pass is not the identity, by class; by name where
    others of the class cannot be; torch's own only where they saturate."""
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(
        Unchanged(),
        Quantized(),
        Halved(),
        nn.Conv2d(1, 4, 3),
        norm,
        MeanSparse(norm, 0.5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 20),
        Halved(),
        Scaled(2.0),
        nn.Softmax(dim=1),
    ).eval()
    found = passed_by(model, torch.rand(2, 1, 8, 8))
    assert [each.module for each in found] == ["Quantized", "2", "MeanSparse", "Scaled", "Softmax"]
    assert {each.written for each in found} == {"identity"}
    assert passed_by(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)) == ()


def test_a_random_model_is_not_called_dependent_on_the_batch() -> None:
    logits = torch.tensor([[4.0, 0.0, 0.0, 0.0]]).repeat(500, 1)
    moving = seen(logits_again=logits + 0.1 * torch.rand_like(logits), logits_alone=logits[:16] + 1)
    assert check_batch(moving)[0] == "WARN"
    assert "not known" in check_batch(moving)[1]
    assert check_slopes(moving)[0] == "WARN"
    still = seen(logits_alone=logits[:16] + 1)
    assert check_batch(still)[0] == "FAIL"


def test_the_attack_that_broke_most_is_named() -> None:
    evidence = breaking(seen(), apgd_ce=slice(0, 20), square=slice(0, 30))
    assert (strongest(evidence), words(evidence, "square")) == ("square", "--attack square")
    sparse = replace(also(evidence, STAND_IN, 28), stand_ins=("Sparse", "Softmax"))
    assert strongest(sparse) == STAND_IN  # two images less than square are chance
    assert words(sparse, STAND_IN) == (
        "--attack cw-pgd-50 --surrogate Sparse=identity --surrogate Softmax=identity"
    )
    assert strongest(also(evidence, STAND_IN, 20)) == "square"
    assert strongest(also(evidence, EOT, 26)) == EOT
    assert words(evidence, EOT) == "--attack cw-pgd-20@eot=10"
    assert strongest(also(evidence, EOT, 10)) == "square"
    assert words(evidence, "substitute") == "--attack transfer:RUN"
    verdict = judge(evidence)
    assert verdict.attack == "--attack square"
    assert math.isclose(verdict.attack_acc or 0, 470 / 500)
    assert Verdict.from_dict(verdict.to_dict()) == verdict
    old = {key: value for key, value in verdict.to_dict().items() if "attack" not in key}
    assert Verdict.from_dict(old).attack == ""


def test_it_is_shown_where_something_is_wrong_only() -> None:
    def shown(evidence: Evidence) -> str:
        return str(judge(evidence).section().blocks[0])

    wrong = breaking(seen(), square=slice(0, 30))
    assert "rpat eval --attack square, leaves 94.00 %" in shown(wrong)
    assert "rpat eval" not in shown(seen())
