"""Optimizers, their parameter groups, cycling momentum, and SAM: against torch, by hand, and over a
resume."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_net
from loops import Recorder, attack_of, images, make_loop, same, weights
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.optimizers import ADAMW, SCALE, parameter_groups, rate_of, set_rates, stages
from rpat_cli.engine.sam import SharpnessAware
from rpat_cli.engine.schedules import OneCycle, Points, momentum_at
from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import StepContext
from rpat_cli.models import MODELS
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.mistakes import doubts

# ---- schedules as published


def of_torch(scheduler: Callable[..., Any], steps: int, **settings: Any) -> list[list[float]]:
    """Learning rate and momentum of each step, as a scheduler of torch sets them."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    made = scheduler(optimizer, **settings)
    seen = []
    for _ in range(steps):
        seen.append([optimizer.param_groups[0][key] for key in ("lr", "momentum")])
        optimizer.step()
        made.step()
    return seen


@pytest.mark.parametrize(("epochs", "peak"), [(40, 0.025 * 4), (30, 0.25)])
def test_one_cycle_stepped_once_an_epoch_is_torchs_with_its_momentum(
    epochs: int, peak: float
) -> None:
    ours = OneCycle(peak, "cosine", initial=1 / 25, final=1 / 25e4, per="epoch")
    torchs = of_torch(OneCycleLR, epochs, max_lr=0.2, total_steps=epochs, pct_start=peak)
    for epoch, (lr, momentum) in enumerate(torchs):
        # Within an epoch nothing changes.
        assert 0.2 * ours(epoch + 0.7, epochs) == pytest.approx(lr, abs=1e-12)
        at = momentum_at((0.85, 0.95), ours, epoch + 0.2, epochs)
        assert at == pytest.approx(momentum, abs=1e-12)


def test_the_triangle_of_fast_training_is_torchs_with_its_momentum() -> None:
    steps, epochs = 60, 15
    torchs = of_torch(CyclicLR, steps, base_lr=0.0, max_lr=0.2, step_size_up=30, step_size_down=30)
    for step, (lr, momentum) in enumerate(torchs):
        point, ours = epochs * step / steps, OneCycle(peak=0.5)
        assert 0.2 * ours(point, epochs) == pytest.approx(lr, abs=1e-12)
        assert momentum_at((0.8, 0.9), ours, point, epochs) == pytest.approx(momentum, abs=1e-12)


def test_points_are_joined_by_lines_and_two_of_one_epoch_are_a_jump() -> None:
    lbgat = Points(((0, 0.2), (1, 0.2), (1, 1), (75, 1), (75, 0.1), (90, 0.1), (90, 0.01)))
    seen = [lbgat(epoch, 100) for epoch in (0, 0.9, 1, 74.9, 75, 89.9, 90, 99)]
    assert seen == pytest.approx([0.2, 0.2, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Points(((2, 0.0), (4, 1.0)))(3.5, 9) == 0.75
    with pytest.raises(ConfigError, match="in order of the epochs"):
        resolve([Layer("given", {"schedule": {"name": "points", "points": [[2, 1], [1, 0.1]]}})])


# ---- groups


class Norm2d(nn.BatchNorm2d):
    """As libraries have theirs."""


class Staged(nn.Module):
    """A backbone that holds nearly everything, and a head, as a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.body = nn.Sequential(*(nn.Conv2d(16, 16, 3) for _ in range(3)), Norm2d(16))
        self.head = nn.Linear(16, 2)


def test_parameters_that_learn_alike_are_given_as_they_always_were() -> None:
    net = tiny_net()
    assert [id(p) for p in parameter_groups([net], 5e-4)] == [id(p) for p in net.parameters()]


@pytest.mark.parametrize(
    ("decayed", "kept"),
    [
        ("no-norms", {"body.3.weight", "body.3.bias"}),
        (
            "weights",
            {"token", *(f"body.{i}.bias" for i in range(4)), "body.3.weight", "head.bias"},
        ),
    ],
)
def test_weight_decay_leaves_alone_what_it_is_told_to(decayed: Any, kept: set[str]) -> None:
    net = Staged()
    names = {id(p): name for name, p in net.named_parameters()}
    groups: Any = parameter_groups([net], 0.1, decayed)
    without = [names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]]
    assert set(without) == kept
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_each_stage_learns_at_a_share_of_the_rate_of_the_next() -> None:
    net = Staged()
    names = {id(p): name for name, p in net.named_parameters()}
    found = [[names[id(p)] for p in stage] for stage in stages(net)]
    assert found == [
        ["token", "body.0.weight", "body.0.bias"],
        *([f"body.{i}.weight", f"body.{i}.bias"] for i in (1, 2, 3)),
        ["head.weight", "head.bias"],
    ]
    optimizer = torch.optim.SGD(parameter_groups([net], 0.0, layer_decay=0.5), lr=1.0)
    set_rates(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert rate_of(optimizer) == 0.4


@pytest.mark.parametrize("name", list(MODELS))
def test_the_head_learns_at_the_full_rate(name: str) -> None:
    """Some networks define it first, as they were published."""
    with torch.device("meta"):
        net = MODELS[name](3, 64, 7)
    head = {id(p) for p in net.parameters() if p.shape[0] == 7}
    assert head
    groups: Any = parameter_groups([net], 0.0, layer_decay=0.5)
    assert {g[SCALE] for g in groups for p in g["params"] if id(p) in head} == {1.0}


def test_the_momentum_of_adamw_is_its_beta1() -> None:
    optimizer = ADAMW.build([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.8, beta2=None)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    set_rates(optimizer, 0.2, 0.7)
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.999)


# ---- SAM


def by_hand(net: nn.Module, x: Tensor, y: Tensor, adaptive: bool, rho: float) -> list[Tensor]:
    """The gradient at the worse weights, from the formulas of both papers."""
    weights = list(net.parameters())
    g = torch.autograd.grad(F.cross_entropy(net(x), y), weights)
    t = [w.detach().abs() + 0.01 if adaptive else torch.ones_like(w) for w in weights]
    norm = torch.cat([(a * b).flatten() for a, b in zip(t, g, strict=True)]).norm()
    worse = copy.deepcopy(net)
    with torch.no_grad():
        for parameter, a, b in zip(worse.parameters(), t, g, strict=True):
            parameter += rho * a**2 * b / norm
    return list(torch.autograd.grad(F.cross_entropy(worse(x), y), list(worse.parameters())))


@pytest.mark.parametrize(("adaptive", "rho"), [(False, 0.05), (True, 0.5)])
def test_the_gradient_is_that_at_the_worse_weights(adaptive: bool, rho: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Softplus(), nn.Linear(5, 3)).double()
    x, y = torch.rand(6, 3, 2, 2).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    method = METHODS["standard"]()
    before = [w.clone() for w in net.parameters()]
    step = StepContext(net, attack_of(METHODS["pgd"](), Threat("Linf", 0.1)), x, y)
    sam = SharpnessAware(adaptive=adaptive)
    with sam.worst_weights(step, lambda s: method(s).terms["ce"]) as worse:
        method(worse).terms["ce"].backward()
    for parameter, kept, expected in zip(
        net.parameters(), before, by_hand(net, x, y, adaptive, rho), strict=True
    ):
        assert torch.equal(parameter, kept)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12)


def test_sam_costs_the_method_twice_and_the_attack_once() -> None:
    records = {}
    for name, sam in (("plain", None), ("sam", SharpnessAware()), ("awp", WeightPerturbation())):
        recorder = Recorder()
        make_loop(awp=sam, callbacks=(recorder,), epochs=1).run()
        records[name] = (recorder.epochs[0].forward, recorder.epochs[0].backward)
    steps = len(images()) // 8
    assert records["plain"] == (3 * steps, 3 * steps)  # two steps of the attack, one of the method
    assert records["sam"] == records["awp"] == (4 * steps, 4 * steps)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sam": True, "awp": True}, "sam: cannot be combined with awp"),
        ({"sam": True, "method": "fgsm-pgi"}, "sam: 'fgsm-pgi' makes its adversarial examples"),
        ({"optimizer": {"beta2": 0.9}}, r"optimizer\.beta2: sgd has none"),
        ({"optimizer": {"name": "adamw", "nesterov": True}}, r"optimizer\.nesterov: adamw has"),
        ({"optimizer": {"cycle_momentum": [0.9, 0.8]}}, "the lowest momentum comes first"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"sam": {"rho": -1}}, r"sam\.rho"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve([Layer("given", values)])


def test_a_rate_that_is_not_one_for_adamw_is_said() -> None:
    (note,) = doubts(resolve([Layer("given", {"optimizer": "adamw"})]))
    assert "0.1 is a high peak rate for adamw" in note


# ---- over a resume


def adamw(loop: TrainLoop) -> None:
    loop.optimizer = ADAMW.build(list(loop.model.parameters()), lr=0.01, momentum=0.9)
    loop.lr = 0.01


def grouped(loop: TrainLoop) -> None:
    groups = parameter_groups([loop.model], 5e-4, "weights", layer_decay=0.7)
    loop.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)


CASES: dict[str, tuple[Callable[[TrainLoop], None], dict[str, Any]]] = {
    "adamw": (adamw, {"awp": SharpnessAware(adaptive=True), "momentum": (0.85, 0.95)}),
    "sam": (lambda loop: None, {"awp": SharpnessAware(), "accumulate": 3}),
    "groups": (grouped, {"momentum": (0.8, 0.9)}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_training_goes_on_to_the_same_bits(case: str) -> None:
    change, settings = CASES[case]

    def loop(**more: Any) -> TrainLoop:
        made = make_loop(**settings, **more)
        change(made)
        return made

    whole = loop()
    assert whole.run()
    plain = make_loop()
    assert plain.run()
    assert not same(weights(whole), weights(plain))
    stopped = loop(should_stop=lambda loop: (loop.epoch, loop.step) >= (1, 1))
    assert not stopped.run()
    state = copy.deepcopy(stopped.state_dict())  # before the next loop is made, which seeds anew
    again = loop()
    again.load_state_dict(state)
    assert again.run()
    assert same(weights(whole), weights(again))
