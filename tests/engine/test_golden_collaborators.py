"""Weight perturbation and weight averaging against recorded steps of the published code."""

import pytest
import torch
from helpers import GOLDEN_FAMILIES, Golden, family_of, golden_files
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.averaging import AveragedModel, decay_at
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import StepContext

FAMILIES = GOLDEN_FAMILIES["collaborators"]


def sets_of(prefix: str) -> list[Golden]:
    files = golden_files("collaborators")
    goldens = [Golden(family_of(file, FAMILIES), file) for file in files]
    return [golden for golden in goldens if golden.name.startswith(prefix)]


class Recorded:
    """Stands in for the attack with the recorded batch."""

    def __init__(self, x_adv: Tensor) -> None:
        self.x_adv = x_adv

    def __call__(self, *_: object) -> Tensor:
        return self.x_adv

    def perturb(self, *_: object, **__: object) -> Tensor:
        return self.x_adv


def attack_of(golden: Golden) -> object:
    hyper = golden.hyper
    if "start_noise" not in golden:
        return Recorded(golden["x_adv"])
    threat = Threat(hyper.get("distance", hyper.get("norm", "Linf")), hyper["epsilon"])
    return PGD(threat, hyper["alpha"], hyper["steps"], start=golden.start, projection="box-first")


def perturbation_of(golden: Golden) -> WeightPerturbation:
    if golden.name == "awp_adr":
        return WeightPerturbation(golden.hyper["rho"], parameters="all", statistics="first")
    return WeightPerturbation(golden.hyper["awp_gamma"])


@pytest.mark.parametrize("golden", sets_of("awp_"), ids=lambda golden: golden.file.stem)
def test_weights_loss_gradients_and_statistics(golden: Golden) -> None:
    hyper, model = golden.hyper, golden.model()
    own = model[1] if "mean" in hyper else model
    before = {name: parameter.detach().clone() for name, parameter in own.named_parameters()}
    if hyper["base"] == "trades":
        method = METHODS["trades"](
            beta=hyper["beta"], extra_clean_pass=True, passes="adversarial-first"
        )
    else:
        method = METHODS["pgd"]()
    x, y = golden.batch
    context = StepContext(model, attack_of(golden), x, y)
    losses: list[float] = []

    def loss_of(step: StepContext) -> Tensor:
        loss = torch.stack(list(method(step).terms.values())).sum()
        losses.append(float(loss.detach()))
        return loss

    with perturbation_of(golden).worst_weights(context, loss_of) as step:
        moved = {name: p.detach() - before[name] for name, p in own.named_parameters()}
        loss_of(step).backward()
    assert losses[1] == pytest.approx(float(golden["loss"]), rel=1e-9)
    if "first_loss" in golden:
        assert losses[0] == pytest.approx(float(golden["first_loss"]), rel=1e-9)
    check_moves(own, moved, golden)
    check_gradients(own, golden.group("grad"))
    buffers = dict(own.named_buffers())
    for name, value in golden.group("after").items():
        torch.testing.assert_close(buffers[name], value, rtol=1e-9, atol=1e-9, msg=name)


def check_moves(model: nn.Module, moved: dict[str, Tensor], golden: Golden) -> None:
    recorded = golden.group("awp")
    for name in dict(model.named_parameters()):
        expected = recorded.get(name)
        if expected is not None:
            torch.testing.assert_close(moved[name], expected, rtol=1e-7, atol=1e-9)
        elif golden.name != "awp_adr":  # there, directions of pure rounding are not recorded
            assert not moved[name].any(), name


def check_gradients(model: nn.Module, recorded: dict[str, Tensor]) -> None:
    scale = max(float(grad.abs().max()) for grad in recorded.values())
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, grad in recorded.items():
        assert float((ours[name] - grad).abs().max()) / scale < 1e-9, name


@pytest.mark.parametrize("golden", sets_of("ema_warmup"), ids=lambda golden: golden.file.stem)
def test_the_warmed_up_average_is_the_recorded_one(golden: Golden) -> None:
    hyper = golden.hyper
    net = nn.Linear(len(golden["start"]), 1, bias=False).double()
    averaged = AveragedModel(net, hyper["tau"], start_epoch=1, form="warm-ema")
    averaged.model.weight.copy_(golden["start"][None])
    for step, values, expected in zip(
        hyper["global_steps"], golden["values"], golden["averaged"], strict=True
    ):
        with torch.no_grad():
            net.weight.copy_(values[None])
        since_start = step - hyper["warmup_steps"]
        averaged.updates = since_start  # the record leaps from step to step
        averaged.update(net, epoch=int(since_start >= 0))
        torch.testing.assert_close(averaged.model.weight[0], expected, rtol=1e-12, atol=1e-14)


def test_equal_weights_are_the_mean_of_all_since_the_start() -> None:
    net = nn.BatchNorm1d(3)
    averaged = AveragedModel(net, 0.9, start_epoch=1, form="swa", buffers="model")
    seen = []
    for step in range(6):
        with torch.no_grad():
            net.weight.copy_(torch.full((3,), float(step**2)))
            net.running_mean.fill_(float(step))
        averaged.update(net, epoch=int(step >= 2))
        seen.append(float(step**2))
    assert averaged.model.weight.tolist() == pytest.approx([sum(seen[2:]) / 4] * 3)
    assert averaged.model.running_mean.tolist() == [5.0] * 3  # the model's own


def test_the_count_of_updates_survives_a_resume() -> None:
    net = nn.Linear(2, 1)
    first = AveragedModel(net, 0.9, start_epoch=0, form="warm-ema")
    for _ in range(3):
        first.update(net, epoch=0)
    again = AveragedModel(net, 0.9, start_epoch=0, form="warm-ema")
    again.load_state_dict(first.state_dict())
    assert again.updates == 3
    assert decay_at("warm-ema", 0.9, again.updates) == 4 / 13
    again.load_state_dict(dict(net.state_dict()))  # of a version that did not count
    assert again.updates == 0
