from typing import Any

import pytest
import torch
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.perception import MIXES, analyse_walks, perceive

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
    found = perceive(Brightness(), x, torch.zeros(6, dtype=torch.int64), LINF)
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
    assert [round(3 * a) for a in (broken.accuracy[4], broken.accuracy[6], broken.accuracy[8])] == [2, 1, 0]
    assert found["random", "broken"].n == 3
    assert found["random", "defended"].whole < 0.01


def test_a_bend_shows_in_the_halves() -> None:
    """Logits that stand still half-way and then jump by 1: nothing in the first half, all in the second."""
    walk = torch.zeros(11, 2, 2)
    walk[:, :, 0] = 0.5
    walk[6:, 0, 1] = 1.0  # the first sample falls, the second does not
    found = analyse_walks({"adversarial": walk, "random": walk[:1].expand(11, 2, 2)}, torch.zeros(2).long(), LINF, 20)
    broken = found["adversarial", "broken"]
    assert (broken.n, broken.first_half, broken.second_half, broken.whole) == (1, 0.0, 0.5, 0.5)
    assert found["adversarial", "defended"].whole == 0.0
    assert found["random", "broken"].accuracy == (1.0,) * 11


def test_without_a_broken_sample_nothing_is_claimed_of_them() -> None:
    x, y = torch.full((2, 1, 4, 4), 0.9), torch.zeros(2, dtype=torch.int64)
    broken = perceive(Brightness(), x, y, LINF)["adversarial", "broken"]
    assert (broken.n, broken.whole, broken.curve) == (0, None, ())


def test_the_model_stays_as_it_was_and_the_seed_decides(honest: Any) -> None:
    before = snapshot(honest.model)
    first = perceive(honest.model, honest.x[:60], honest.y[:60], honest.threat, batch_size=25)
    assert_same(before, snapshot(honest.model))
    assert (
        first.to_dict() == perceive(honest.model, honest.x[:60], honest.y[:60], honest.threat, batch_size=25).to_dict()
    )
    assert first["adversarial", "defended"].whole > first["random", "defended"].whole
