"""On a linear model the worst case is known in closed form, and PGD must reach it in every norm."""

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat

SHAPE = (3, 6, 6)
ROOMY = {"Linf": 0.05, "L2": 0.3, "L1": 0.4}  # from x = 0.5 the box is out of reach
TIGHT = {"Linf": 0.3, "L2": 2.5, "L1": 8.0}


def linear_model() -> tuple[nn.Module, Tensor]:
    """Two classes; returns the gradient of logit 1 minus logit 0 too. The truth is always class 0.

    The gradient's entries are spread evenly over three decades: of two nearly equal ones any would
    do.
    """
    sizes = torch.logspace(-3, 0, 3 * 6 * 6, dtype=torch.float64)
    g = sizes[torch.randperm(len(sizes))] * (2 * torch.randint(0, 2, sizes.shape) - 1)
    layer = nn.Linear(len(g), 2).double()
    with torch.no_grad():
        layer.weight[1] = layer.weight[0] + g
    return nn.Sequential(nn.Flatten(), layer), g


def gain(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    with torch.no_grad():
        margins = [logits[:, 1] - logits[:, 0] for logits in (model(x_adv), model(x))]
    return margins[0] - margins[1]


def best_in_ball(norm: str, eps: float, g: Tensor) -> Tensor:
    """The dual norm."""
    return eps * {"Linf": g.abs().sum(), "L2": g.norm(), "L1": g.abs().max()}[norm]


def best_in_ball_and_box(norm: str, eps: float, g: Tensor, x: Tensor) -> float:
    """One sample: coordinate by coordinate (Linf), one-dimensional search (L2), fractional knapsack
    (L1)."""
    room = torch.where(g > 0, 1 - x, x)
    if norm == "Linf":
        return float((g.abs() * room.clamp_max(eps)).sum())
    if norm == "L2":
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            far = torch.minimum(middle * g.abs(), room).norm() > eps
            low, high = (low, middle) if far else (middle, high)
        return float((g.abs() * torch.minimum(low * g.abs(), room)).sum())
    total, left = 0.0, eps
    for i in g.abs().argsort(descending=True):
        spent = min(left, float(room[i]))
        total, left = total + spent * float(g[i].abs()), left - spent
    return total


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("norm", ROOMY)
def test_dual_norm_with_room_to_the_box(norm: str, loss: str) -> None:
    model, g = linear_model()
    x = torch.full((4, *SHAPE), 0.5, dtype=torch.float64)
    threat = Threat(norm, ROOMY[norm])
    attack = PGD(threat, threat.default_step_size(), steps=300, loss=loss)
    x_adv = attack(model, x, torch.zeros(4, dtype=torch.long))
    expected = best_in_ball(norm, threat.eps, g).expand(4)
    torch.testing.assert_close(gain(model, x, x_adv), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("start", ["zero", "uniform"])
@pytest.mark.parametrize("norm", TIGHT)
def test_knapsack_and_its_like_with_the_box_active(norm: str, start: str) -> None:
    model, g = linear_model()
    x = torch.rand(4, *SHAPE, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    threat = Threat(norm, TIGHT[norm])
    attack = PGD(threat, threat.default_step_size(), steps=300, start=start)
    x_adv = attack(model, x, torch.zeros(4, dtype=torch.long))
    expected = [best_in_ball_and_box(norm, threat.eps, g, sample.flatten()) for sample in x]
    torch.testing.assert_close(
        gain(model, x, x_adv), torch.tensor(expected).double(), rtol=1e-5, atol=0
    )
    assert threat.contains(x, x_adv, tol=1e-9).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_fgsm_step_is_enough(norm: str) -> None:
    model, g = linear_model()
    x = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    x_adv = ATTACKS["fgsm"](Threat(norm, ROOMY[norm]))(model, x, torch.zeros(2, dtype=torch.long))
    expected = best_in_ball(norm, ROOMY[norm], g).expand(2)
    torch.testing.assert_close(gain(model, x, x_adv), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("norm", ROOMY)
def test_ten_default_steps_get_most_of_it(norm: str) -> None:
    """What training pays for: ten steps. ten times the step is 2.5, 1.2 and 2 radii."""
    model, g = linear_model()
    x = torch.full((4, *SHAPE), 0.5, dtype=torch.float64)
    x_adv = ATTACKS["pgd"](Threat(norm, ROOMY[norm]))(model, x, torch.zeros(4, dtype=torch.long))
    assert (gain(model, x, x_adv) >= 0.75 * best_in_ball(norm, ROOMY[norm], g)).all()
