"""A list of AutoAttack's attacks runs as AutoAttack runs them: it is no weaker than its parts."""

import pytest
import torch
from helpers import tiny_net
from toys import Toy

from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite

BUDGET = ("use_largereps", "n_iter", "loss", "eot_iter")


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t"])
def test_a_part_runs_alike_alone_and_in_a_list(norm: str, part: str) -> None:
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    threat, net = Threat(norm, 0.5), tiny_net()
    alone = AutoAttack(threat, attacks=(part,)).on(net, x, y).settings(part)
    listed = AutoAttack(threat, "custom", (part, "square")).on(net, x, y).settings(part)
    assert [alone.get(key) for key in BUDGET] == [listed.get(key) for key in BUDGET]
    assert listed["n_restarts"] >= alone["n_restarts"]


@pytest.mark.usefixtures("small_budgets")
def test_no_image_that_a_part_breaks_in_l1_survives_the_list(toy: Toy) -> None:
    specs = parse_suite("autoattack:apgd-ce,autoattack:apgd-ce+square")
    part, whole = evaluate(toy.model, toy.x, toy.y, specs, Threat("L1", 4.0), batch_size=48).results
    assert part.robust_acc < 1
    assert not (whole.correct_after & ~part.correct_after).any()
