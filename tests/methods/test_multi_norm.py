"""MAX and AVG of several norms, beside the norms one by one and plain cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_net
from torch import Tensor

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Outcome, StepContext

Batch = tuple[Tensor, Tensor]
RADII = {"linf": 0.03, "l2": 0.6, "l1": 6.0}
"""Each norm is the worst one of some of the images."""


def outcome(batch: Batch, combine: str, **radii: float) -> Outcome:
    torch.manual_seed(7)
    model = tiny_net().double().train()
    method = METHODS["multi-norm"](**(dict.fromkeys(RADII, 0.0) | radii), combine=combine)
    x, y = batch
    step = StepContext(model, ATTACKS["pgd"](Threat("Linf", 0.1), steps=5), x.double(), y)
    made: Outcome = method(step)
    return made


def losses(x: Tensor, y: Tensor, *, train: bool) -> Tensor:
    """(B,) of the network before the step."""
    torch.manual_seed(7)
    model = tiny_net().double().train(train)
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


@pytest.fixture
def alone(batch: Batch) -> dict[str, Tensor]:
    """x' of each norm, made without the others."""
    return {name: outcome(batch, "max", **{name: eps}).x_adv for name, eps in RADII.items()}


def test_max_trains_on_the_worst_norm_of_each_image(batch: Batch, alone: dict[str, Tensor]) -> None:
    x, y = batch
    made = outcome(batch, "max", **RADII)
    each = torch.stack([losses(x_adv, y, train=False) for x_adv in alone.values()])
    worst = each.argmax(dim=0).tolist()
    assert len(set(worst)) > 1
    expected = torch.stack([list(alone.values())[norm][i] for i, norm in enumerate(worst)])
    assert torch.equal(made.x_adv, expected)
    assert made.loss.item() == pytest.approx(losses(expected, y, train=True).mean().item())
    assert (losses(expected, y, train=False) > losses(x.double(), y, train=False)).all()


def test_avg_is_the_mean_over_the_norms(batch: Batch, alone: dict[str, Tensor]) -> None:
    made = outcome(batch, "avg", **RADII)
    each = [losses(x_adv, batch[1], train=True).mean().item() for x_adv in alone.values()]
    assert len(made.terms) == 3
    assert made.loss.item() == pytest.approx(sum(each) / 3)
