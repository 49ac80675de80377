"""Square's search without the copies: the library's queries, images and draws, to the bit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers import tiny_net
from pyautoattack.square import SquareAttack
from torch import Tensor

from rpat_cli.attacks.square_search import search_squares

Predict = Callable[[Tensor], Tensor]


def attack_on(predict: Predict, queries: int, eps: float, *, ours: bool) -> Any:
    settings = {"eps": eps, "n_queries": queries, "norm": "Linf", "resc_schedule": False}
    attack = SquareAttack(predict, p_init=0.8, seed=0, device="cpu", **settings)
    if ours:
        attack.attack_single_run = partial(search_squares, attack)
    return attack


def both(predict: Predict, x: Tensor, y: Tensor, queries: int = 300, eps: float = 0.1) -> Any:
    """Of the library and of ours: queries, images, and the generator after them."""
    found = []
    for ours in (False, True):
        attack = attack_on(predict, queries, eps, ours=ours)
        attack.init_hyperparam(x)
        torch.manual_seed(3)
        with torch.no_grad():
            found.append((*attack.attack_single_run(x.clone(), y), torch.get_rng_state()))
    return found


def images(count: int, channels: int = 3, size: tuple[int, int] = (9, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return (torch.rand(count, channels, *size, generator=generator) * 1.4 - 0.2).clamp(0, 1)


def assert_equal(found: Any) -> None:
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_it_gives_the_librarys_images(eps: float, channels: int, count: int) -> None:
    torch.manual_seed(1)
    net = tiny_net(channels).eval()
    x = images(count, channels)
    y = net(x).argmax(1)
    found = both(net, x, y, eps=eps)
    assert_equal(found)
    best = found[1][1]
    assert ((best - x).abs() <= eps + 1e-6).all()
    assert 0 <= best.min() <= best.max() <= 1
    with torch.no_grad():
        margins = net(best).gather(1, y[:, None]) - net(x).gather(1, y[:, None])
    assert not torch.equal(margins, torch.zeros_like(margins))


def test_images_leave_once_they_are_fooled() -> None:
    torch.manual_seed(1)
    net, sizes = tiny_net().eval(), []

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return net(x)

    x = images(40)
    assert_equal(both(counted, x, net(x).argmax(1), queries=200))
    theirs, ours = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    assert theirs == ours
    assert 0 < ours[-1] < 40


@pytest.mark.parametrize("kind", ["all fooled", "margins of 0", "NaN", "now and then NaN"])
def test_odd_models(kind: str) -> None:
    """Of which images are not in the search at all, or leave it without being fooled."""
    calls = []

    def predict(x: Tensor) -> Tensor:
        calls.append(len(x))
        score = x.flatten(1).sum(1, keepdim=True)
        if kind == "all fooled":
            return torch.cat([-score, score], dim=1)
        if kind == "margins of 0":
            even = (score > score.median()).float()
            return torch.cat([score, score - (1 - even)], dim=1)
        logits = torch.cat([score, -score], dim=1)
        odd = torch.ones_like(score) if kind == "NaN" else (score * 1e4).long() % 7 == 0
        return logits.masked_fill(odd.bool() & (torch.arange(len(x))[:, None] > 2), float("nan"))

    assert_equal(both(predict, images(12), torch.zeros(12, dtype=torch.long), queries=50))
