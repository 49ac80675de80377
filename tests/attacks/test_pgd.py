"""The loop: how many passes, what is kept, where it starts, and what it says of wrong settings."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import CountForwards, assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.forward import unwrap
from rpat_cli.attacks.losses import cross_entropy, margin
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError

Batch = tuple[Tensor, Tensor]
THREAT = Threat("Linf", 8 / 255)


class CountBackwards(torch.autograd.Function):
    """The identity, counting the gradients that pass."""

    count = 0

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: object, grad: Tensor) -> Tensor:
        CountBackwards.count += 1
        return grad


class Counted(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(CountBackwards.apply(x))


@pytest.mark.parametrize("steps", [0, 1, 7, 20])
def test_exactly_k_forward_and_backward_passes(net: nn.Module, batch: Batch, steps: int) -> None:
    model = Counted(net)
    forwards, CountBackwards.count = CountForwards(model), 0
    PGD(THREAT, 2 / 255, steps)(model, *batch)
    assert (forwards.total, CountBackwards.count) == (steps, steps)


def test_batchnorm_mode_train_moves_statistics_and_restores_modes(
    net: nn.Module, batch: Batch
) -> None:
    net[1].eval()  # a frozen layer amid a model in train mode
    before = snapshot(net)
    PGD(THREAT, 2 / 255, 3, bn_mode="train")(net, *batch)
    after = snapshot(net)
    assert after["modes"] == before["modes"]
    assert int(net[4].num_batches_tracked) == 3
    for name, value in before["state"].items():
        assert (
            "running" in name or "num_batches" in name or torch.equal(value, after["state"][name])
        )


def test_modes_are_restored_when_the_loss_raises(net: nn.Module, batch: Batch) -> None:
    net.train()
    with pytest.raises(ZeroDivisionError):
        PGD(THREAT, 2 / 255, 3).perturb(net, batch[0], lambda logits: logits.sum() / (1 // 0))
    assert all(module.training for module in net.modules())


def test_caller_under_no_grad_and_autocast(net: nn.Module, batch: Batch) -> None:
    net.eval()
    plain = PGD(THREAT, 2 / 255, 5, start="zero")(net, *batch)
    with torch.no_grad():
        assert torch.equal(PGD(THREAT, 2 / 255, 5, start="zero")(net, *batch), plain)
    with torch.autocast("cpu", torch.bfloat16):
        x_adv = PGD(THREAT, 2 / 255, 5, start="zero")(net, *batch)
    assert x_adv.dtype == torch.float32
    assert (x_adv - plain).abs().mean() < 8 / 255 / 4  # bfloat16 turns some signs, not most


def test_ddp_wrapper_is_taken_off(net: nn.Module, batch: Batch) -> None:
    wrapped = nn.DataParallel(net)
    assert unwrap(wrapped) is net
    count = CountForwards(wrapped)
    PGD(THREAT, 2 / 255, 2)(wrapped, *batch)
    assert count.total == 0


def test_perturb_with_a_start_of_ones_own(net: nn.Module, batch: Batch) -> None:
    x, y = batch
    start = 0.01 * torch.randn_like(x)

    def loss_fn(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="sum")

    by_field = PGD(THREAT, 2 / 255, 5, start=start)(net, x, y)
    by_call = PGD(THREAT, 2 / 255, 5, restarts=3).perturb(net, x, loss_fn, start=start)
    assert torch.equal(by_field, by_call)
    assert not torch.equal(by_field, PGD(THREAT, 2 / 255, 5, start=-start)(net, x, y))


def test_noise_is_pgd_without_steps(net: nn.Module, batch: Batch) -> None:
    count = CountForwards(net)
    x_adv = ATTACKS["noise"](THREAT)(net, *batch)
    assert count.total == 0
    assert (x_adv - batch[0]).abs().max() > 0.9 * THREAT.eps
    ATTACKS["noise"](THREAT, draws=4)(net, *batch)
    assert count.total == 4


def trained(batch: Batch) -> nn.Module:
    """A model that is right on the batch, by margins that some attacks overcome and some don't."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
    return model.eval()


def losses(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = model(x)
    return cross_entropy(logits, y), logits.argmax(1) != y


@pytest.mark.parametrize("norm_eps", [("Linf", 0.1), ("L2", 1.2), ("L1", 8.0)])
def test_worst_never_loses_a_sample_that_any_step_fooled(norm_eps: tuple[str, float]) -> None:
    x, y = torch.rand(32, 3, 8, 8), torch.randint(0, 10, (32,))
    model = trained((x, y))
    threat = Threat(*norm_eps)
    size = threat.eps  # long steps overshoot, so that the last is not always the best
    path = [losses(model, PGD(threat, size, k, start="zero")(model, x, y), y) for k in range(6)]
    ever = torch.stack([fooled for _, fooled in path]).any(dim=0)
    worst, fooled = losses(model, PGD(threat, size, 5, start="zero", keep="worst")(model, x, y), y)
    assert torch.equal(fooled, ever)
    assert 0 < ever.sum() < 32  # both kinds occur, or this proves nothing
    highest = torch.stack([loss for loss, _ in path]).amax(dim=0)
    torch.testing.assert_close(worst[~ever], highest[~ever], rtol=1e-4, atol=1e-5)


def test_worst_spends_no_further_pass_on_fooled_samples() -> None:
    x = torch.full((4, 1, 2, 2), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        y = 1 - model(x).argmax(1)  # fooled before the first step
    count = CountForwards(model)
    x_adv = PGD(THREAT, 2 / 255, 10, start="zero", keep="worst")(model, x, y)
    assert count.total == 1
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("keep", ["last", "worst"])
def test_restarts_only_add(keep: str) -> None:
    x, y = torch.rand(32, 3, 8, 8), torch.randint(0, 10, (32,))
    model = trained((x, y))
    attack = PGD(Threat("Linf", 0.1), 0.1, 1, keep=keep)
    torch.manual_seed(1)
    loss_1, fooled_1 = losses(model, attack(model, x, y), y)
    torch.manual_seed(1)
    loss_5, fooled_5 = losses(model, replace(attack, restarts=5)(model, x, y), y)
    assert not (fooled_1 & ~fooled_5).any()
    assert (loss_5 >= loss_1 - 1e-6)[~fooled_5].all()
    assert (loss_5 > loss_1 + 1e-6).any()


def test_restarts_with_a_scalar_loss_choose_for_the_whole_batch() -> None:
    x, y = torch.rand(8, 3, 8, 8), torch.randint(0, 10, (8,))
    model = trained((x, y))
    attack = PGD(Threat("Linf", 0.03), 0.03, 0, restarts=6)
    torch.manual_seed(2)
    draws = [
        Threat("Linf", 0.03).apply(x, torch.empty_like(x).uniform_(-0.03, 0.03)) for _ in range(6)
    ]
    best = max(draws, key=lambda x_adv: float(losses(model, x_adv, y)[0].sum()))
    torch.manual_seed(2)
    assert torch.equal(
        attack.perturb(model, x, lambda logits: cross_entropy(logits, y).sum()), best
    )


def test_momentum_is_that_of_the_paper() -> None:
    """Two steps by hand: g1 = ∇1/|∇1|, g2 = g1 + ∇2/|∇2|, each step eps/T times the sign."""
    x, y = torch.rand(4, 3, 8, 8, dtype=torch.float64) / 2 + 0.25, torch.randint(0, 10, (4,))
    model = copy.deepcopy(trained((x.float(), y))).double()
    x_adv, g = x, torch.zeros_like(x)
    for _ in range(2):
        leaf = x_adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
        g = g + grad / grad.abs().sum(dim=(1, 2, 3), keepdim=True)
        x_adv = x_adv + 0.02 * g.sign()
    ours = ATTACKS["mim"](Threat("Linf", 0.04), steps=2)(model, x, y)
    torch.testing.assert_close(ours, x_adv, rtol=0, atol=1e-12)


def test_margin_is_positive_where_the_model_is_right() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [1.0, -2.0]


def test_saturated_model_is_still_attacked() -> None:
    """Logits times 60: cross-entropy gradients are near the smallest float32, and their squares are
    zero."""
    x = torch.full((4, 3, 8, 8), 0.5)
    linear = nn.Linear(192, 2)
    with torch.no_grad():
        linear.weight[1] = linear.weight[0] - 0.01 * torch.randn(192)
        gap = (linear(x.flatten(1))[:, 0] - linear(x.flatten(1))[:, 1])[0]
        linear.bias[0] += 0.05 - gap
        linear.weight *= 1200
        linear.bias *= 1200
    model = nn.Sequential(nn.Flatten(), linear)
    y = torch.zeros(4, dtype=torch.long)
    before = margin(model(x), y)
    for norm, eps in (("Linf", 0.05), ("L2", 0.7), ("L1", 5.0)):
        x_adv = ATTACKS["pgd"](Threat(norm, eps), start="zero")(model, x, y)
        assert (margin(model(x_adv), y) < before - 1).all(), norm


def test_model_without_gradients_leaves_x_inside() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)[:, :3]

    x = torch.rand(4, 3, 8, 8)
    x_adv = PGD(THREAT, 2 / 255, 3, start="zero")(Detached(), x, torch.zeros(4, dtype=torch.long))
    assert torch.equal(x_adv, x)


def test_soft_labels(net: nn.Module, batch: Batch) -> None:
    x, y = batch
    one_hot = F.one_hot(y, 10).float()
    for keep in ("last", "worst"):
        attack = PGD(THREAT, 2 / 255, 3, start="zero", keep=keep)
        torch.testing.assert_close(attack(net, x, one_hot), attack(net, x, y))


def test_wrong_settings_are_listed_together() -> None:
    with pytest.raises(ConfigError) as caught:
        PGD(THREAT, step_size=-1, steps=-2, start="uniforn", bn_mode="off", loss="cw", restarts=0)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "Did you mean 'uniform'?" in message
    assert all(key in message for key in ("step_size", "steps", "bn_mode", "loss", "restarts"))
    with pytest.raises(ConfigError, match="all end at the same point"):
        PGD(THREAT, 0.1, 1, start="zero", restarts=2)
    with pytest.raises(ConfigError, match="batch statistics"):
        PGD(THREAT, 0.1, 1, keep="worst", bn_mode="train")
    with pytest.raises(ConfigError, match="Did you mean 'restarts'"):
        ATTACKS["pgd"](THREAT, restart=3)


def test_model_is_untouched_by_worst_too(net: nn.Module, batch: Batch) -> None:
    before = snapshot(net)
    PGD(THREAT, 2 / 255, 3, restarts=2, keep="worst")(net, *batch)
    assert_same(before, snapshot(net))
