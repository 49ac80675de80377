"""`best --audit` on models that mask their gradients: the sample shows it, and the whole of
AutoAttack runs without being asked for. On an honest one the sample is all that runs."""

from typing import Any

import pyautoattack
import pytest
from replicas import REPLICAS, Nets
from toys import Quick

from rpat_cli.evaluation.audit import Audit
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.suite import parse_suite


class QuickButSquare(Quick):
    """What masks a gradient is found by Square, which needs some queries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.square.n_queries = 300


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyautoattack, "AutoAttack", QuickButSquare)
    short_best = ("apgd-dlr-10", "mm-3@steps=5", "apgd-t-5")
    monkeypatch.setattr("rpat_cli.attacks.cascade.BEST", short_best)


def audited(model: Any, honest: Any) -> tuple[Evaluation, Audit]:
    x, y = honest.x[:80], honest.y[:80]
    evaluation = evaluate(model.eval(), x, y, parse_suite("best,audit:10"), honest.threat)
    audit = evaluation.results[-1].audit
    assert audit is not None
    return evaluation, audit


MASKED = ("detached gradient", "shattered gradient", "quantized input", "quantized features")


@pytest.mark.parametrize(
    "name", [MASKED[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MASKED[1:])]
)
def test_it_goes_on_to_the_whole_by_itself(name: str, honest: Any) -> None:
    model = REPLICAS[name].make(Nets(honest.model, honest.threat))
    evaluation, audit = audited(model, honest)
    assert audit.whole
    assert "too many to bound" in audit.reason
    assert audit.sampled == audit.survivors > 40
    # `best` alone was wrong by more than the width.
    best = evaluation.results[0]
    assert best.accuracy.correct - evaluation.robust.correct == audit.broken > 8


def test_on_an_honest_model_it_stays_with_the_sample(honest: Any) -> None:
    _, audit = audited(honest.model, honest)
    assert not audit.whole
    assert audit.sampled < audit.survivors / 2
