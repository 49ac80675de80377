"""On linear models the surface is a plane, or a known function of one."""

import json
import math
from typing import Any

import pytest
import torch
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.loss_surface import LossSurface, measure_loss_surface
from rpat_cli.errors import ConfigError, DataError


class Linear(nn.Module):
    """Logits (v, 0) with v = w . x, so the margin of class 0 is -v and its cross-entropy log(1 +
    exp(-v))."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.register_buffer("w", w)

    def forward(self, x: Tensor) -> Tensor:
        v = x.flatten(1) @ self.w
        return torch.stack([v, torch.zeros_like(v)], dim=1)


W = torch.tensor([2.0, -1.0, 0.5, 1.5])
X = torch.tensor([[0.5, 0.4, 0.6, 0.5], [0.3, 0.5, 0.5, 0.4]]).view(2, 1, 2, 2)
Y = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(("norm", "rise"), [("Linf", 5.0), ("L2", math.sqrt(7.5)), ("L1", 2.0)])
def test_along_the_gradient_the_margin_rises_by_the_dual_norm(norm: str, rise: float) -> None:
    """eps |w|_1 in Linf, eps |w|_2 in L2; an L1 step of one pixel moves the steepest one."""
    eps = 0.1
    found = measure_loss_surface(Linear(W), X, Y, Threat(norm, eps), side=5)
    margin, entropy = found.surfaces["margin"], found.surfaces["ce"]
    start = -(X.flatten(1) @ W)
    assert found.shares == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert margin.values[2] == pytest.approx(
        [float(start.mean()) + share * eps * rise for share in found.shares]
    )
    assert entropy.values[2] == pytest.approx(
        [float((start + share * eps * rise).exp().log1p().mean()) for share in found.shares]
    )
    assert [margin.rise, margin.predicted_rise] == pytest.approx([eps * rise] * 2, rel=1e-5)
    assert margin.nonlinearity == pytest.approx(0, abs=1e-6)


def test_the_margin_is_a_plane_in_both_directions() -> None:
    values = torch.tensor(
        measure_loss_surface(Linear(W), X, Y, Threat("Linf", 0.1), side=7).surfaces["margin"].values
    )
    along, across = values.diff(dim=1), values.diff(dim=0)
    assert along.max() - along.min() < 1e-6
    assert across.max() - across.min() < 1e-6
    assert across.abs().max() <= along.abs().max() + 1e-6  # no direction beats the steepest


def test_nonlinearity_is_that_of_the_cross_entropy_alone() -> None:
    """On a linear model the largest departure is at one end of the gradient direction."""
    x, y, eps = X[:1], Y[:1], 0.1
    found = measure_loss_surface(Linear(W), x, y, Threat("Linf", eps), side=5).surfaces["ce"]
    m, step = -float((x.flatten(1) @ W)[0]), 5.0 * eps
    slope = 1 / (1 + math.exp(-m))
    departures = [
        abs(math.log1p(math.exp(m + a)) - math.log1p(math.exp(m)) - slope * a)
        for a in (step, -step)
    ]
    assert found.nonlinearity == pytest.approx(max(departures), rel=1e-4)
    assert found.predicted_rise == pytest.approx(slope * step, rel=1e-5)
    assert found.rise == pytest.approx(
        math.log1p(math.exp(m + step)) - math.log1p(math.exp(m)), rel=1e-5
    )
    halved = measure_loss_surface(Linear(W), x, y, Threat("Linf", eps / 10), side=5).surfaces["ce"]
    assert halved.nonlinearity == pytest.approx(
        found.nonlinearity / 100, rel=0.1
    )  # of second order in eps


def test_a_model_whose_gradient_is_cut_is_flat_along_it() -> None:
    class Cut(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    margin = measure_loss_surface(Cut(W), X, Y, Threat("Linf", 0.1), side=3).surfaces["margin"]
    assert margin.values[1][0] == margin.values[1][1] == margin.values[1][2]
    assert (margin.rise, margin.predicted_rise) == (0, 0)
    assert margin.values[0] != margin.values[1]


def test_pixels_stay_in_the_box() -> None:
    """White images and weights that would make them whiter: nothing changes on that side."""
    margin = measure_loss_surface(
        Linear(-W.abs()), torch.ones(1, 1, 2, 2), Y[:1], Threat("Linf", 0.1), side=3
    ).surfaces["margin"]
    assert margin.values[1][2] == margin.values[1][1] == pytest.approx(5.0)
    assert margin.values[1][0] == pytest.approx(4.5)


def test_it_leaves_no_trace_and_comes_back_from_json(honest: Any) -> None:
    before = snapshot(honest.model)
    arguments = (honest.model, honest.x[:20], honest.y[:20], honest.threat)
    found = measure_loss_surface(*arguments, side=5, batch_size=8)
    assert_same(before, snapshot(honest.model))
    assert LossSurface.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert measure_loss_surface(*arguments, side=5, batch_size=8) == found
    entropy = found.surfaces["ce"]
    assert entropy.values[2][0] < entropy.values[2][2] < entropy.values[2][4]
    assert entropy.nonlinearity > abs(entropy.rise - entropy.predicted_rise)


def test_what_cannot_be_surveyed_is_said() -> None:
    with pytest.raises(ConfigError, match="odd number"):
        measure_loss_surface(Linear(W), X, Y, Threat("Linf", 0.1), side=4)
    with pytest.raises(DataError, match="no image"):
        measure_loss_surface(Linear(W), X[:0], Y[:0], Threat("Linf", 0.1))
