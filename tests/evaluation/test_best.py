"""`best`: stages, each on what those before it have left."""

from typing import Any

import pytest
import torch

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.cascade import BEST, STEPS_OF_BEST
from rpat_cli.attacks.row import STEP
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation import bench
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.chunks import Progress
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.passes import count_passes

LINF = Threat("Linf", 0.06)
SHORT = ("apgd-dlr-3", "mm-2@steps=3", "apgd-t-4")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stages with few steps."""
    monkeypatch.setattr("rpat_cli.attacks.cascade.BEST", SHORT)


def run(toy: Any, **options: Any) -> Evaluation:
    return evaluate(toy.model, toy.x, toy.y, parse_suite("best"), LINF, batch_size=20, **options)


@pytest.mark.usefixtures("short")
def test_each_stage_attacks_what_is_left(toy: Any) -> None:
    seen: list[Progress] = []
    evaluation = run(toy, on_progress=seen.append)
    result = Evaluation.from_dict(evaluation.to_dict())["best"]
    assert [stage.name for stage in result.stages] == list(SHORT)
    left = evaluation.clean.correct
    for stage in result.stages:
        assert stage.attacked == left
        left -= stage.broken
    assert left == int(result.correct_after.sum())
    assert result.settings["attacks"]["apgd-t-4"]["steps"] == 4
    assert result.settings["attacks"]["mm-2@steps=3"]["loss"] == "margin"
    assert all(each.left is None or each.left >= 0 for each in seen)
    assert seen[-1].left == 0


@pytest.mark.usefixtures("short")
def test_known_chunks_are_taken_over(toy: Any) -> None:
    kept: list[Any] = []
    whole = run(toy, on_chunk=kept.append)
    with count_passes(toy.model) as passes:
        again = run(toy, known=kept)
    assert torch.equal(again["best"].correct_after, whole["best"].correct_after)
    assert passes.forward_samples < whole["best"].forward / 2  # the clean images, and a look


def test_the_forecast_knows_its_cost() -> None:
    steps = 0.0
    for spec in parse_suite(BEST):
        steps += ATTACKS[spec.name].passes(spec.settings) / STEP
    assert steps == pytest.approx(STEPS_OF_BEST)
    assert ATTACKS["best"].passes({}) == STEP * STEPS_OF_BEST
    assert bench.ATTACKS["best"].follows_gradient


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_it_is_no_weaker_than_autoattack_at_an_eighth_of_its_passes(toy: Any, norm: str) -> None:
    threat = Threat(norm, {"Linf": 0.05, "L2": 0.3, "L1": 2.0}[norm])
    suite = parse_suite("best,autoattack")
    best, whole = evaluate(toy.model, toy.x, toy.y, suite, threat, batch_size=48).results
    # In L1 single images break or not by how the processor rounds, for AutoAttack as for `best`.
    more = 1 if norm == "L1" else 0
    assert best.correct_after.sum() <= whole.correct_after.sum() + more
    assert best.forward <= whole.forward / 8
