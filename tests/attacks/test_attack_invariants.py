"""What holds for every attack of the table, in every norm: those that an evaluation calls, and, for
more, those that train."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import assert_same, snapshot, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS, TRAINING_ATTACKS
from rpat_cli.attacks.losses import cross_entropy
from rpat_cli.attacks.threat import DEFAULT_EPS, Threat

Batch = tuple[Tensor, Tensor]


@pytest.fixture
def busy_net(batch: Batch) -> nn.Module:
    """In train mode but for one layer, with gradients waiting and one frozen parameter."""
    model = nn.Sequential(tiny_net(), nn.Dropout(0.5))
    model(batch[0]).square().mean().backward()
    model[0][4].eval()
    model[0][0].weight.requires_grad_(False)
    return model


SHORT = {"steps": 4, "restarts": 1, "rounds": 2, "queries": 300}


def evaluated(name: str, norm: str, eps: float) -> Any:
    """The attack as an evaluation builds it, but short."""
    row = ATTACKS[name]
    settings = {key: value for key, value in SHORT.items() if key in row.takes}
    return row(Threat(norm, eps), **settings)


def called_in() -> Iterator[tuple[str, str]]:
    """Every attack that is called by itself, in each of its norms. Those that minimize may leave
    the ball; what is a list of others, or a library's, is no function of a model and images."""
    for name, row in ((name, ATTACKS[name]) for name in ATTACKS):
        for norm in row.norms:
            if not (row.form or row.minimizes) and callable(evaluated(name, norm, 0.1)):
                yield name, norm


@pytest.mark.parametrize(("name", "norm"), list(called_in()))
def test_what_an_evaluation_calls_stays_inside_and_leaves_no_trace(
    name: str, norm: str, busy_net: nn.Module, batch: Batch
) -> None:
    x, y = batch
    attack = evaluated(name, norm, DEFAULT_EPS[norm])
    x_before, before = x.clone(), snapshot(busy_net)
    x_adv = attack(busy_net, x, y)
    assert_same(before, snapshot(busy_net))
    assert torch.equal(x, x_before)
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert attack.threat.contains(x, x_adv).all()


@pytest.mark.parametrize("entry", ["call", "perturb"])
@pytest.mark.parametrize("norm", DEFAULT_EPS)
@pytest.mark.parametrize("name", TRAINING_ATTACKS)
def test_inside_finite_and_without_a_trace(
    name: str, norm: str, entry: str, busy_net: nn.Module, batch: Batch
) -> None:
    x, y = batch
    threat = Threat(norm, DEFAULT_EPS[norm])
    attack = ATTACKS[name].for_training(threat, {})
    x_before, before = x.clone(), snapshot(busy_net)
    if entry == "call":
        x_adv = attack(busy_net, x, y)
    else:
        x_adv = attack.perturb(busy_net, x, lambda logits: cross_entropy(logits, y).sum())
    assert_same(before, snapshot(busy_net))
    assert torch.equal(x, x_before)
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert torch.isfinite(x_adv).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert threat.contains(x, x_adv).all()
    assert (threat.distance(x, x_adv) > 0).all()


@pytest.mark.parametrize("norm", DEFAULT_EPS)
@pytest.mark.parametrize("name", [name for name in TRAINING_ATTACKS if name != "noise"])
def test_gradient_attacks_raise_the_loss_and_beat_noise(
    name: str, norm: str, net: nn.Module, batch: Batch
) -> None:
    x, y = batch
    net.eval()
    threat = Threat(norm, DEFAULT_EPS[norm])

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            return cross_entropy(net(x), y)

    attack = ATTACKS[name].for_training(threat, {})
    raised = loss(attack(net, x, y))
    assert (raised > loss(x)).all()
    assert raised.mean() > loss(ATTACKS["noise"](threat, draws=20)(net, x, y)).mean()


@pytest.mark.parametrize("name", TRAINING_ATTACKS)
def test_radius_zero_returns_x(name: str, net: nn.Module, batch: Batch) -> None:
    for norm in DEFAULT_EPS:
        assert torch.equal(ATTACKS[name](Threat(norm, 0.0))(net, *batch), batch[0])
