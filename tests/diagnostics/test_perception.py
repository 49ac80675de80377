import json
from typing import Any

import pytest
import torch
from helpers import assert_same, snapshot
from scipy import stats
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import MIXES, Perception, analyze_walks, measure_perception

LINF = Threat("Linf", 0.1)


class Brightness(nn.Module):
    """Two classes by the mean pixel, logits (m, -m) with m = 4 (mean - 1/2)."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 4 * (x.flatten(1).mean(dim=1) - 0.5)
        return torch.stack([lead, -lead], dim=1)


def test_on_a_linear_model_every_figure_is_known() -> None:
    """PGD takes 0.1 off every pixel: the logits move by 0.4 mix, in a straight line."""
    means = torch.tensor([0.52, 0.55, 0.57, 0.62, 0.7, 0.4])  # the last one is wrong from the start
    x = means.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    found = measure_perception(Brightness(), x, torch.zeros(6, dtype=torch.int64), LINF)
    broken, defended = found["adversarial", "broken"], found["adversarial", "defended"]
    assert (found.n, broken.n, defended.n) == (6, 3, 2)
    for change in (broken, defended):
        assert change.first_half == pytest.approx(0.04, rel=1e-4)
        assert change.second_half == pytest.approx(0.04, rel=1e-4)
        assert change.whole == pytest.approx(0.16, rel=1e-4)
        assert change.curve == pytest.approx([0.16 * mix**2 for mix in MIXES], rel=1e-4, abs=1e-9)
    assert defended.accuracy == (1.0,) * 11
    # 0.52 falls after mix 0.2, 0.55 at 0.5, 0.57 after 0.7
    assert broken.accuracy[:3] == (1.0, 1.0, pytest.approx(1.0, abs=0.34))
    assert [round(3 * a) for a in (broken.accuracy[4], broken.accuracy[6], broken.accuracy[8])] == [
        2,
        1,
        0,
    ]
    assert found["random", "broken"].n == 3
    assert found["random", "defended"].whole < 0.01


def test_a_bend_shows_in_the_halves() -> None:
    """Logits that stand still half-way and then jump by 1: nothing in the first half, all in the
    second."""
    walk = torch.zeros(11, 2, 2)
    walk[:, :, 0] = 0.5
    walk[6:, 0, 1] = 1.0  # the first sample falls, the second does not
    found = analyze_walks(
        {"adversarial": walk, "random": walk[:1].expand(11, 2, 2)}, torch.zeros(2).long(), LINF, 20
    )
    broken = found["adversarial", "broken"]
    assert (broken.n, broken.first_half, broken.second_half, broken.whole) == (1, 0.0, 0.5, 0.5)
    assert found["adversarial", "defended"].whole == 0.0
    assert found["random", "broken"].accuracy == (1.0,) * 11


def walking(broken: list[float], defended: list[float]) -> Perception:
    """Samples whose first logit moves evenly by so much; the second one's lead is lost by the
    broken ones."""
    moves = torch.tensor([*broken, *defended])
    walk = torch.zeros(11, len(moves), 2)
    walk[:, :, 0] = 1 + torch.linspace(0, 1, 11)[:, None] * moves
    walk[-1, : len(broken), 1] = 100.0  # the last step alone: the second logit overtakes
    return analyze_walks(
        {"adversarial": walk, "random": walk[:1].expand_as(walk)},
        torch.zeros(len(moves)).long(),
        LINF,
        20,
    )


@pytest.mark.parametrize(
    ("broken", "defended", "claim"),
    [
        ([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0], "supports"),
        ([2.0, 2.1, 1.9, 2.0], [1.0, 1.1, 0.9, 1.0], "contradicts"),
        ([1.0, 2.0, 0.5, 1.5], [1.1, 1.9, 0.6, 1.6], "cannot tell"),
        ([1.0], [2.0, 2.1, 1.9, 2.0], "cannot tell"),  # one sample has no variance
    ],
)
def test_the_papers_claim_is_judged_by_the_interval_of_the_difference(
    broken: list[float], defended: list[float], claim: str
) -> None:
    found = walking(broken, defended)
    half, _, _ = found.gaps
    squares = [[(0.5 * move) ** 2 / 2 for move in moves] for moves in (defended, broken)]
    means = [sum(values) / len(values) for values in squares]
    assert (half.stretch, half.claim) == ("first_half", claim)
    assert half.difference == pytest.approx(means[0] - means[1], rel=1e-5)
    if len(broken) > 1:
        test = stats.ttest_ind(*squares, equal_var=False)
        assert half.interval == pytest.approx(
            tuple(test.confidence_interval(0.95)), abs=0.1 * abs(means[0])
        )
    else:
        assert half.interval is None


def test_it_comes_back_from_json() -> None:
    for found in (walking([1.0, 1.2], [2.0, 2.1]), walking([], [2.0, 2.1])):
        assert Perception.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_without_a_broken_sample_nothing_is_claimed_of_them() -> None:
    x, y = torch.full((2, 1, 4, 4), 0.9), torch.zeros(2, dtype=torch.int64)
    found = measure_perception(Brightness(), x, y, LINF)
    broken = found["adversarial", "broken"]
    assert (broken.n, broken.whole, broken.curve) == (0, None, ())
    assert [(gap.difference, gap.interval, gap.claim) for gap in found.gaps] == [
        (None, None, "cannot tell")
    ] * 3


def test_the_model_stays_as_it_was_and_the_seed_decides(honest: Any) -> None:
    before = snapshot(honest.model)
    first = measure_perception(
        honest.model, honest.x[:60], honest.y[:60], honest.threat, batch_size=25
    )
    assert_same(before, snapshot(honest.model))
    assert (
        first.to_dict()
        == measure_perception(
            honest.model, honest.x[:60], honest.y[:60], honest.threat, batch_size=25
        ).to_dict()
    )
    assert first["adversarial", "defended"].whole > first["random", "defended"].whole
