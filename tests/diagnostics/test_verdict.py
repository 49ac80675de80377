"""A robust model passes every check, and each check sees what it is for. Whole defenses that only
look robust are in test_replicas.py."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, snapshot
from replicas import Detached, Shattering
from torch import nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.checks import (
    CHECKS,
    check_black_box,
    check_convergence,
    check_dynamic,
    check_eps,
    check_logit_range,
    check_noise,
    check_pixels,
    check_single_step,
    check_steps,
    check_transfer,
    check_unbounded,
    check_zero_gradients,
)
from rpat_cli.diagnostics.verdict.evidence import Evidence
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.diagnostics.verdict.substitute import QUERIES
from rpat_cli.diagnostics.verdict.verdict import Verdict, judge
from rpat_cli.evaluation.statistics import sign_test

TINY = {"images": 40, "square_queries": 60, "substitute_queries": 100}


def verdict_of(model: nn.Module, honest: Any, **options: Any) -> Verdict:
    return judge(gather(model, honest.x, honest.y, honest.threat, **{**TINY, **options}))


@pytest.fixture(scope="module")
def evidence(honest: Any) -> Evidence:
    return gather(honest.model, honest.x, honest.y, honest.threat)


def test_an_adversarially_trained_model_passes_every_check(evidence: Evidence) -> None:
    verdict = judge(evidence)
    assert {f.name: f.reason for f in verdict.checks if f.level != "PASS"} == {}
    assert verdict.level == "PASS"
    assert evidence.correct.n == 200
    assert evidence.robust("whole box").correct == 0
    assert all(finding.paper and finding.reason for finding in verdict.checks)


def test_a_verdict_comes_back_from_json_and_damage_is_noticed(evidence: Evidence) -> None:
    verdict = judge(evidence)
    saved = json.loads(json.dumps(verdict.to_dict()))
    assert Verdict.from_dict(saved) == verdict
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 20
    with pytest.raises(ValueError, match="the level is FAIL, that of the checks PASS"):
        Verdict.from_dict({**saved, "level": "FAIL"})


def seen(n: int = 500, **changes: Any) -> Evidence:
    """What one sees of a model that gets all of n images right, falls to nothing at eps, and to
    everything at 1."""
    none, everything = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    names = (
        "noise",
        "fgsm",
        "pgd-5",
        "pgd-20",
        "pgd-50",
        "apgd-ce",
        "square",
        "substitute",
        "eps x 1",
    )
    evidence = Evidence(
        threat=Threat("Linf", 0.1),
        y=torch.zeros(n, dtype=torch.int64),
        pixels=(0.0, 1.0),
        training=(),
        was_training=False,
        connected=True,
        logits=torch.tensor([[4.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        logits_again=torch.tensor([[4.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        gradient_norm=torch.ones(n),
        broken={**dict.fromkeys(names, none), "whole box": everything},
        eps={"eps x 1": 0.1, "whole box": 1.0},
        losses=(*torch.linspace(0.1, 0.5, 26).tolist(), *[0.5] * 25),
        flags=(),
        skipped={},
        transfers=("substitute",),
    )
    return replace(evidence, **changes)


def breaking(evidence: Evidence, **counts: slice) -> Evidence:
    """The same, with some images broken by some attacks; `pgd_20` stands for pgd-20."""
    broken = dict(evidence.broken)
    for name, which in counts.items():
        flags = torch.zeros_like(evidence.broken["noise"])
        flags[which] = True
        broken[name.replace("pgd_", "pgd-").replace("whole_", "whole ")] = flags
    return replace(evidence, broken=broken)


def test_the_evidence_of_these_tests_is_in_order() -> None:
    assert judge(seen()).level == "PASS"


@pytest.mark.parametrize(
    ("square", "apgd", "level"),
    [
        (
            slice(100, 102),
            slice(0, 100),
            "PASS",
        ),  # two images of 500 more: AutoAttack's own flag would fire
        (slice(0, 2), slice(0, 0), "PASS"),
        (slice(0, 7), slice(0, 0), "WARN"),  # 2^-7 by chance
        (slice(0, 10), slice(0, 0), "FAIL"),  # 2^-10
        (
            slice(100, 140),
            slice(0, 100),
            "WARN",
        ),  # fewer than apgd-ce, but a tenth of what it leaves
    ],
)
def test_square_is_judged_by_counts_not_by_a_percentage(
    square: slice, apgd: slice, level: str
) -> None:
    found, reason = check_black_box(breaking(seen(), square=square, apgd_ce=apgd))
    assert found == level, reason


def test_a_check_that_could_not_run_does_not_pass() -> None:
    broken = {name: flags for name, flags in seen().broken.items() if name != "square"}
    level, reason = check_black_box(seen(broken=broken, skipped={"square": "images are too small"}))
    assert level == "WARN"
    assert "square could not run: images are too small" in reason


def test_weak_attacks_that_win_are_found() -> None:
    assert check_noise(breaking(seen(), noise=slice(0, 20)))[0] == "FAIL"
    assert check_single_step(breaking(seen(), fgsm=slice(0, 20), pgd_20=slice(30, 33)))[0] == "FAIL"
    assert check_single_step(breaking(seen(), fgsm=slice(0, 20), pgd_20=slice(10, 40)))[0] == "PASS"
    fewer = check_steps(
        breaking(seen(), pgd_5=slice(0, 60), pgd_20=slice(0, 60), pgd_50=slice(0, 40))
    )
    assert fewer[0] == "FAIL"
    assert "20 by pgd-20 only" in fewer[1]


@pytest.mark.parametrize("breaking", [Shattering, Detached])
def test_what_is_made_on_a_substitute_breaks_a_model_whose_own_gradient_lies(
    breaking: type[nn.Module], honest: Any
) -> None:
    verdict = verdict_of(
        nn.Sequential(breaking(), honest.model), honest, images=200, substitute_queries=QUERIES
    )
    finding = verdict["white box beats transfer"]
    assert finding.level == "FAIL", finding.reason
    assert "by substitute only" in finding.reason
    assert "Papernot" in finding.paper


def test_a_given_source_counts_beside_the_substitute(honest: Any) -> None:
    """The model itself, handed over as the source for a defence that cuts its gradient, breaks it
    at once."""
    cut = nn.Sequential(Detached(), honest.model)
    evidence = gather(
        cut, honest.x, honest.y, honest.threat, **TINY, sources={"transfer:twin": honest.model}
    )
    assert evidence.transfers == ("transfer:twin", "substitute")
    own = gather(honest.model, honest.x, honest.y, honest.threat, **TINY)
    assert int(evidence.broken["transfer:twin"].sum()) == pytest.approx(
        int(own.broken["pgd-20"].sum()), abs=2
    )
    twin = breaking(seen(), substitute=slice(0, 3), pgd_20=slice(0, 5), pgd_50=slice(0, 2))
    assert check_transfer(twin)[0] == "PASS"
    beaten = replace(
        twin,
        broken={**twin.broken, "transfer:a": torch.arange(500) < 40},
        transfers=("transfer:a",),
    )
    assert check_transfer(beaten)[0] == "FAIL"
    assert "35 by transfer:a only" in check_transfer(beaten)[1]
    assert "images broken: 0 by pgd-20 only" in check_transfer(beaten)[1]


def test_robust_accuracy_has_to_fall_to_nothing_as_eps_grows() -> None:
    assert check_unbounded(breaking(seen(), whole_box=slice(0, 490)))[0] == "PASS"
    assert check_unbounded(breaking(seen(), whole_box=slice(0, 440)))[0] == "WARN"
    left = check_unbounded(breaking(seen(), whole_box=slice(0, 100)))
    assert left[0] == "FAIL"
    assert "80 % at 1" in left[1]
    many = torch.tensor([[4.0, *[0.0] * 199]]).repeat(
        500, 1
    )  # of 200 classes chance would get 2.5 images right
    assert check_unbounded(breaking(seen(logits=many), whole_box=slice(0, 490)))[0] == "PASS"
    assert check_unbounded(breaking(seen(logits=many), whole_box=slice(0, 400)))[0] == "FAIL"
    rising = replace(breaking(seen(), whole_box=slice(0, 50)))
    rising = replace(rising, broken={**rising.broken, "eps x 1": torch.arange(500) < 90})
    assert check_eps(rising)[0] == "FAIL"


@pytest.mark.parametrize(
    ("losses", "level"),
    [
        ([0.1 + 0.02 * k for k in range(51)], "WARN"),
        ([0.5] * 51, "FAIL"),
        ([0.1] + [0.5] * 50, "PASS"),
        ([0.1] + [0.5] * 49 + [0.4999], "PASS"),
    ],
)
def test_a_loss_that_still_rises_is_seen(losses: list[float], level: str) -> None:
    found, reason = check_convergence(seen(losses=tuple(losses)))
    assert found == level
    assert "-0.0" not in reason


@pytest.mark.parametrize(
    ("lead", "level"), [(9.0, "PASS"), (40.0, "WARN"), (4e4, "FAIL"), (1e-5, "WARN")]
)
def test_logits_out_of_range_are_seen(lead: float, level: str) -> None:
    logits = F.one_hot(torch.zeros(500, dtype=torch.int64), 4) * lead
    assert check_logit_range(seen(logits=logits, logits_again=logits))[0] == level


@pytest.mark.parametrize(
    ("only_by_margin", "level"), [(1, "PASS"), (6, "PASS"), (7, "WARN")]
)  # chance: 2^-6, 2^-7
def test_a_sure_model_is_suspect_only_where_that_hides_something(
    only_by_margin: int, level: str
) -> None:
    """Saturated logits, which PGD on the cross-entropy leaves left: does PGD on the margin
    break them?"""
    logits = F.one_hot(torch.zeros(500, dtype=torch.int64), 4) * 40.0
    evidence = seen(
        logits=logits, logits_again=logits, gradient_norm=(torch.arange(500) >= 20).float()
    )
    evidence = replace(
        evidence, broken={**evidence.broken, "cw-pgd": torch.arange(500) < only_by_margin}
    )
    assert check_logit_range(evidence)[0] == check_zero_gradients(evidence)[0] == level


def test_a_few_images_are_not_enough_to_trust_a_model() -> None:
    assert judge(seen(20)).level == "PASS"
    few = judge(seen(19))
    assert (few.level, few["better than chance"].level) == ("WARN", "WARN")
    assert (
        "19 of 19 images are classified correctly without an attack: too few"
        in few["better than chance"].reason
    )


@pytest.mark.parametrize(
    ("pixels", "level"), [((0, 1), "PASS"), ((-0.4, 2.8), "FAIL"), ((0, 1 / 255), "WARN")]
)
def test_pixels_out_of_range_are_seen(pixels: tuple[float, float], level: str) -> None:
    assert check_pixels(seen(pixels=pixels))[0] == level


def test_only_the_flag_for_dynamic_models_makes_a_dynamic_model() -> None:
    assert check_dynamic(seen(flags=("there are 3 points with zero gradient!",)))[0] == "PASS"
    assert check_dynamic(seen(flags=("it seems to be a dynamic defense!",)))[0] == "WARN"


def test_a_model_that_is_never_right_is_not_called_robust(honest: Any) -> None:
    with torch.no_grad():
        wrong = (honest.model(honest.x[:60]).argmax(dim=1) + 1) % 10
    verdict = judge(gather(honest.model, honest.x[:60], wrong, honest.threat))
    assert verdict["better than chance"].level == verdict.level == "WARN"
    assert "nonzero gradients" not in {finding.name for finding in verdict.checks}


def test_the_model_comes_out_as_it_went_in_and_the_seed_decides(honest: Any) -> None:
    before = snapshot(honest.model)
    options = {"images": 20, "square_queries": 20, "substitute_queries": 100}
    first = gather(honest.model, honest.x, honest.y, honest.threat, **options)
    assert_same(before, snapshot(honest.model))
    torch.manual_seed(9)
    assert (
        first.to_dict()
        == gather(honest.model, honest.x, honest.y, honest.threat, **options).to_dict()
    )


@pytest.mark.parametrize("classes", [2, 3, 200])
def test_any_number_of_classes(classes: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    x = torch.rand(2 * classes, 1, 8, 8)
    y = model(x).argmax(dim=1)
    verdict = judge(
        gather(
            model.eval(),
            x,
            y,
            Threat("Linf", 0.05),
            images=20,
            square_queries=20,
            substitute_queries=100,
        )
    )
    assert verdict.to_dict()["evidence"]["clean_acc"] == 1.0


@pytest.mark.parametrize(
    ("more", "less", "p"),
    [(0, 0, 1.0), (1, 0, 0.5), (2, 1, 0.5), (10, 0, 2**-10), (3, 7, 0.9453125)],
)
def test_the_sign_test_is_exact(more: int, less: int, p: float) -> None:
    assert sign_test(more, less) == pytest.approx(p)


def test_the_sign_test_of_every_image_of_a_large_test_set_takes_no_minutes() -> None:
    assert sign_test(10_000, 10_000) == pytest.approx(
        0.5 + 0.5 / math.sqrt(math.pi * 10_000), rel=1e-4
    )
