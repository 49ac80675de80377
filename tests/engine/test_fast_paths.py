"""What a GPU needs: a step without a wait for the device; and the faster ways to attack, which
train the same."""

from dataclasses import replace

import pytest
import torch
from loops import images, make_loop, weights
from torch.utils._python_dispatch import TorchDispatchMode

from rpat_cli.attacks import geometry, pgd
from rpat_cli.attacks.compiling import compiling_allowed
from rpat_cli.attacks.folding import folding_allowed
from rpat_cli.attacks.graphs import graphing_allowed
from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.compute import Compute
from rpat_cli.methods import METHODS
from rpat_cli.methods.compose import compose
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.recipe.optimizer_section import OptimizerSection
from rpat_cli.runs.build import build_optimizer

CPU = torch.device("cpu")
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item")
"""Operations whose answer Python waits for."""


class Waits(TorchDispatchMode):
    """Notes the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("name", ["pgd", "trades", "mart", "consistency"])
def test_a_step_waits_for_the_device_only_to_read_its_numbers(
    name: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both look at values on a CPU only, which is what this test can run on.
    monkeypatch.setattr(pgd, "check_pixels", lambda model, x: None)
    monkeypatch.setattr(geometry, "exceeds", lambda norms, eps: True)
    method = compose(METHODS[name](), RobustPerception())
    loop = make_loop(method, threat=Threat(norm, 0.1), clip_norm=1.0, awp=WeightPerturbation())
    batch = next(iter(loop._batches()))
    with Waits() as waits:
        loop._train_step(*batch)
    assert waits.seen == []  # on a CPU, the one transfer of all numbers is none


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_nothing_changes_where_the_ball_is_not_left(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(4, 3, 8, 8)
    delta = 0.001 * torch.randn_like(x)
    asked = Threat(norm, 5.0).apply(x, delta)
    monkeypatch.setattr(geometry, "exceeds", lambda norms, eps: True)
    assert torch.equal(Threat(norm, 5.0).apply(x, delta), asked)


def test_folded_attacks_train_the_same() -> None:
    """Double precision: what differs is rounding, 1e-16 a step."""
    trained = {}
    for fast in (False, True):
        split = images()
        loop = make_loop(METHODS["trades"](), threat=Threat("L2", 0.5), epochs=1)
        loop.model.double()
        loop.compute = Compute(CPU, fast=fast)
        loop.augment = lambda x: x.double()
        loop.train = split
        loop.run()
        trained[fast] = weights(loop)
    assert any(not torch.equal(trained[True][name], trained[False][name]) for name in trained[True])
    for name, value in trained[False].items():
        torch.testing.assert_close(trained[True][name], value, rtol=1e-9, atol=1e-9)


def test_what_attacks_may_do_is_told_by_the_compute() -> None:
    for compute, fold, compiled, graphs in (
        (Compute(CPU), False, False, False),
        (Compute(CPU, fast=True), True, False, False),
        (Compute(CPU, fast=True, compiled=True), False, True, False),
        (Compute(torch.device("cuda"), fast=True), True, False, True),
    ):
        with compute.autocast():
            allowed = folding_allowed(), compiling_allowed(), graphing_allowed()
            assert allowed == (fold, compiled, graphs)
        assert not folding_allowed()
        assert not compiling_allowed()
        assert not graphing_allowed()


@pytest.mark.parametrize("nesterov", [False, True])
def test_on_a_cpu_the_optimizer_moves_weights_to_the_bits_of_torchs_plain_one(
    nesterov: bool,
) -> None:
    """Torch's fused one rounds otherwise there, and a training would end elsewhere than before."""
    section = OptimizerSection(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
    moved = []
    for ours in (True, False):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(64, 33))
        settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": nesterov}
        optimizer = (
            build_optimizer(section, [weight])
            if ours
            else torch.optim.SGD([weight], **settings, foreach=False)
        )
        for _ in range(5):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
        moved.append(weight.detach())
    assert torch.equal(*moved)


def test_bounds_found_once_give_the_same_bits() -> None:
    """The nearest point in ball and box, from its definition."""
    torch.manual_seed(0)
    x, eps = torch.rand(4, 3, 8, 8), 8 / 255
    x[0], x[1] = 0.0, 1.0
    delta = 0.1 * torch.randn_like(x)
    room = torch.where(delta > 0, 1 - x, x)
    expected = (x + delta.clamp(-eps, eps).clamp(-room, room)).clamp(0, 1)
    assert torch.equal(Threat("Linf", eps).apply(x, delta), expected)


def test_an_attack_computes_no_gradient_of_weights() -> None:
    loop = make_loop()
    batch = next(iter(loop._batches()))
    seen = []
    for parameter in loop.model.parameters():
        parameter.register_hook(lambda grad: seen.append(grad))
    replace(loop.attack, steps=3)(loop.model, *batch[:2])
    assert seen == []
