"""Broken defenses are found, each for its own reason, and the attack that the verdict names breaks
them."""

import shlex
from typing import Any

import pyautoattack
import pytest
from replicas import REPLICAS, Nets, Replica
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.image_by_image import LEVELS
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.diagnostics.verdict.verdict import judge
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.stand_ins import read_surrogates

ATTACKED = 100


class FewQueries(pyautoattack.AutoAttack):  # type: ignore[misc]
    """Square in a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.square.n_queries = 300


@pytest.fixture(scope="module")
def nets(honest: Any) -> Nets:
    return Nets(honest.model, honest.threat)


def broken_by(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, words: str) -> int:
    """How many images `rpat eval WORDS` breaks."""
    _, attack, *rest = shlex.split(words)
    surrogates = read_surrogates(rest[1::2])
    specs = parse_suite(attack)
    evaluation = evaluate(model, x, y, specs, threat, surrogates=surrogates)
    return evaluation.clean.correct - evaluation.results[0].accuracy.correct


def _timed(name: str) -> Any:
    """Those that are trained, or need many images, take ten seconds or so."""
    is_slow = REPLICAS[name].images > 40 or REPLICAS[name].threat is not None
    return pytest.param(name, marks=pytest.mark.slow if is_slow else ())


@pytest.mark.parametrize("name", [_timed(name) for name in REPLICAS])
def test_a_broken_defense_is_found_and_broken_by_the_attack_named(
    name: str, nets: Nets, honest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica: Replica = REPLICAS[name]
    model, threat = replica.make(nets), replica.threat or honest.threat
    budgets = {"images": replica.images, "square_queries": replica.queries}
    evidence = gather(model, honest.x, honest.y, threat, substitute_queries=100, **budgets)
    verdict = judge(evidence)
    report = {found.name: (found.level, found.reason) for found in verdict.checks}
    level = report[replica.check][0]
    assert LEVELS.index(level) >= LEVELS.index(replica.level) > 0, report
    assert verdict.level == "FAIL" or replica.level == "WARN"
    if replica.attack is None:
        return
    assert verdict.attack.startswith(replica.attack), {
        k: int(v.sum()) for k, v in evidence.broken.items()
    }
    monkeypatch.setattr(pyautoattack, "AutoAttack", FewQueries)
    x, y = honest.x[:ATTACKED], honest.y[:ATTACKED]
    weak = broken_by(model, x, y, threat, "--attack " + replica.fooled)
    strong = broken_by(model, x, y, threat, verdict.attack)
    assert strong >= max(1.15 * weak, weak + 3), (strong, weak)
