"""BatchNorm folded into convolutions: the same logits and input gradients, and no trace."""

import pytest
import torch
from helpers import assert_same, snapshot, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.attacks.folding import folded, folded_weights, folding, pairs_of
from rpat_cli.attacks.forward import input_gradient
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.models.base import build_model
from rpat_cli.passes import count_passes

FOLDABLE = {
    "small-cnn": 3,
    "resnet18": 20,
    "preact-resnet18": 8,
    "preact-resnet18-stem": 9,
    "vgg16": 10,
    "mobilenet-v2": 57,
}
"""How many BatchNorms alone take a convolution's output, counted on paper."""


def with_statistics(model: nn.Module) -> nn.Module:
    """In float64, with statistics, scales and shifts of which none is 0 or 1."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model.double().eval()


def network(name: str) -> nn.Module:
    model = build_model(name, shape=(3, 16, 16), classes=10, mean=[0.5] * 3, std=[0.2] * 3)
    return with_statistics(model)


def answers(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    grad, _, logits = input_gradient(model, x, lambda logits: logits.logsumexp(1))
    return logits, grad


@pytest.mark.parametrize("name", FOLDABLE)
def test_same_logits_and_gradients_in_double_precision(name: str) -> None:
    model, x = network(name), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    logits, grad = answers(model, x)
    before = snapshot(model)
    with folded(model):
        folded_logits, folded_grad = answers(model, x)
    assert len(pairs_of(model, x)) == FOLDABLE[name]
    assert not torch.equal(logits, folded_logits)  # it was folded: another order of rounding
    torch.testing.assert_close(
        folded_logits, logits, rtol=0, atol=1e-10 * float(logits.abs().max())
    )
    torch.testing.assert_close(folded_grad, grad, rtol=0, atol=1e-10 * float(grad.abs().max()))
    assert_same(before, snapshot(model))
    assert torch.equal(answers(model, x)[0], logits)
    assert not any("forward" in vars(module) for module in model.modules())


def test_folded_weights_on_paper() -> None:
    """One channel: 3 · (2 x + 1 - 5) / sqrt(4) + 7 = 3 x + 1, with eps 0."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    for tensor, value in (
        (conv.weight, 2.0),
        (conv.bias, 1.0),
        (norm.running_mean, 5.0),
        (norm.running_var, 4.0),
        (norm.weight, 3.0),
        (norm.bias, 7.0),
    ):
        tensor.data.fill_(value)
    weight, bias = folded_weights(conv, norm)
    assert (weight.item(), bias.item()) == (3.0, 1.0)


class TwoConsumers(nn.Module):
    """A convolution whose output BatchNorm does not take alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return (self.norm(out) + out).mean(dim=(2, 3))


class Hidden(TwoConsumers):
    """The same, out of autograd's sight."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return (self.norm(out) + out.detach()).mean(dim=(2, 3))


@pytest.mark.parametrize("model", [TwoConsumers(), Hidden()], ids=["seen", "hidden"])
def test_a_network_that_it_would_change_stays(model: nn.Module) -> None:
    model, x = with_statistics(model), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    logits, _ = answers(model, x)
    with folded(model):
        assert torch.equal(answers(model, x)[0], logits)
    assert pairs_of(model, x) == ()


@pytest.fixture
def folding_net() -> nn.Module:
    return with_statistics(tiny_net())


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_attacks_fold_where_allowed_but_not_batch_statistics(
    bn_mode: str, folding_net: nn.Module
) -> None:
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    with folding(), attack_mode(folding_net, bn_mode) as model:
        model(x)
        replaced = ["forward" in vars(module) for module in model]
    assert sum(replaced) == (4 if bn_mode == "eval" else 0)
    with attack_mode(folding_net) as model:
        model(x)
        assert not any("forward" in vars(module) for module in model)


def test_an_attack_makes_the_same_examples_with_as_many_passes(folding_net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 3, 8, 8, dtype=torch.float64, generator=generator)
    y = torch.arange(8)
    attack = PGD(Threat("L2", 0.5), 0.1, steps=5)
    made = []
    for allowed in (False, True):
        torch.manual_seed(0)
        with folding(allowed), count_passes(folding_net) as passes:
            made.append(attack(folding_net, x, y))
        assert (passes.forward, passes.backward) == (5, 5)
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", TRAINING_ATTACKS)
def test_no_attack_leaves_a_trace(name: str, folding_net: nn.Module) -> None:
    x, y = torch.rand(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    folding_net.train()
    folding_net(x).square().mean().backward()
    before = snapshot(folding_net)
    state = torch.get_rng_state()
    with folding():
        pairs_of(folding_net.eval(), x)
        folding_net.train()
        assert torch.equal(torch.get_rng_state(), state)
        attack = TRAINING_ATTACKS[name].for_training(Threat("Linf", 0.03), {})
        attack(folding_net, x, y)
    after = snapshot(folding_net)
    assert_same(before, after)


def test_folded_in_bfloat16_too(folding_net: nn.Module) -> None:
    """Converted once, not at every call: autocast does not do it for tensors of ours."""
    model, x = folding_net.float(), torch.rand(4, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), folded(model):
        logits = model(x)
        assert model[0].forward.args[1].dtype is torch.bfloat16
    torch.testing.assert_close(logits.float(), model(x), rtol=0, atol=0.05)
