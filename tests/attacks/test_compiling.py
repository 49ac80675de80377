"""Compiled networks: the same examples, no gradients for parameters, and no trace."""

import copy

import pytest
import torch
from helpers import assert_same, snapshot, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks.compiling import compiling
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.passes import count_passes

BACKENDS = ["eager", "aot_eager"]
"""Of torch.compile: they capture the graph, and its backward pass, without a compiler."""


class Wrapped(nn.Module):
    """A network with a forward of its own; `nn.Sequential`'s is torch's, and is not captured."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(2 * x - 1)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Wrapped().double()


def attacked(model: nn.Module, x: Tensor, **settings: object) -> Tensor:
    torch.manual_seed(0)
    attack = PGD(Threat("L2", 0.5), 0.1, steps=3, **settings)
    return attack(model, x, torch.arange(len(x)))


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_examples_in_as_many_passes(backend: str, bn_mode: str, model: nn.Module) -> None:
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    plain = attacked(copy.deepcopy(model), x, bn_mode=bn_mode)
    torch._dynamo.utils.counters.clear()
    with compiling(backend), count_passes(model) as passes:
        made = attacked(model, x, bn_mode=bn_mode)
    assert (passes.forward, passes.backward) == (3, 3)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 1  # it was captured
    torch.testing.assert_close(made, plain, rtol=0, atol=1e-9)


def test_no_trace_and_no_work_for_parameters(model: nn.Module) -> None:
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    model(x).square().mean().backward()
    model.net[0].weight.requires_grad_(False)
    before = snapshot(model)
    with compiling("aot_eager"), attack_mode(model) as inside:
        assert not any(parameter.requires_grad for parameter in inside.parameters())
        with attack_mode(inside):  # as TRADES has it, within an evaluation
            inside(x)
        assert "forward" in vars(inside)
    assert "forward" not in vars(model)
    assert_same(before, snapshot(model))
