"""Weight averaging, weight perturbation, mixed labels, parts of a batch: each with every method,
and by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import CountForwards, assert_same, snapshot, tiny_net
from loops import Recorder, attack_of, images, make_loop, same, terms_of, weights
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.mixing import CutMix, SoftLabels
from rpat_cli.data.order import SharedOrder
from rpat_cli.engine.averaging import AveragedModel, WeightAveraging
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.stages import FromEpoch
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.rebat import beta_at
from rpat_cli.passes import count_passes

Batch = tuple[Tensor, Tensor]
WITH: dict[str, dict[str, Any]] = {
    "plain": {},
    "wa": {"wa": WeightAveraging(decay=0.9, start_epoch=1)},
    "awp": {"awp": WeightPerturbation(gamma=0.01)},
    "cutmix": {"relabel": SoftLabels(10, 0.1, CutMix())},
    "everything": {
        "wa": WeightAveraging(decay=0.9, start_epoch=1),
        "awp": WeightPerturbation(gamma=0.01, start_epoch=1),
        "accumulate": 3,
        "clip_norm": 0.5,
        "late_augment": FromEpoch(1, lambda x: x.flip(-1)),
        "late_attack": FromEpoch(1, PGD(Threat("Linf", 10 / 255), 2 / 255, 3)),
    },
}


def method_with(name: str, ra: bool) -> Any:
    return compose(
        METHODS[name](), *([REGULARIZERS["ra"](form=METHODS[name].ra_form)] if ra else [])
    )


EPS = {"Linf": 8 / 255, "L2": 0.5, "L1": 8.0}
IN_NORM = [
    *((collaborators, "Linf") for collaborators in WITH),
    *(("plain", norm) for norm in ("L2", "L1")),
    # What averages and perturbs weights knows nothing of norms.
    *(
        pytest.param(collaborators, norm, marks=pytest.mark.slow)
        for collaborators in ("wa", "awp")
        for norm in ("L2", "L1")
    ),
]


@pytest.mark.parametrize(("collaborators", "norm"), IN_NORM)
@pytest.mark.parametrize("ra", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_with_everything_and_goes_on_to_the_same_bits(
    name: str, ra: bool, collaborators: str, norm: str
) -> None:
    if collaborators == "cutmix" and getattr(METHODS[name], "needs_class", False):
        pytest.skip("not defined: the recipe refuses it")
    settings = {**WITH[collaborators], "threat": Threat(norm, EPS[norm])}
    if "awp" in settings and METHODS[name].own_examples:
        pytest.skip("not defined: the recipe refuses it")
    if METHODS[name]().needs_teacher:
        settings.setdefault("wa", WITH["wa"]["wa"])
    method, recorder = method_with(name, ra), Recorder()
    whole = make_loop(method, callbacks=(recorder,), **settings)
    before = weights(whole)
    assert whole.run()
    assert not same(before, weights(whole))
    for record in recorder.steps:
        terms = terms_of(record)
        assert math.isfinite(record.terms["loss"])
        assert sum(terms.values()) == pytest.approx(record.terms["loss"], rel=1e-5)
    assert ("ra" in terms) == ra
    first = make_loop(
        method, should_stop=lambda loop: (loop.epoch, loop.step) >= (1, 1), **settings
    )
    assert not first.run()
    state = first.state_dict()
    second = make_loop(method, **settings)
    torch.rand(100)
    second.load_state_dict(state)
    assert second.run()
    assert same(weights(whole), weights(second))
    if whole.averaging is not None:
        assert same(whole.averaging.state_dict(), second.averaging.state_dict())
        assert not same(weights(whole), whole.averaging.state_dict())


# ---- averaging


def test_the_average_is_exponential_over_parameters_and_statistics(net: nn.Module) -> None:
    average = AveragedModel(net, decay=0.75, start_epoch=2)
    seen = []
    for epoch in (1, 2, 2, 3):
        with torch.no_grad():
            for value in net.state_dict().values():
                value.add_(1 if not value.is_floating_point() else torch.randn_like(value))
        average.update(net, epoch)
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        assert (average.teacher(epoch) is None) == (epoch < 2)
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            expected = 0.75**3 * seen[0][name]
            expected += sum(0.25 * 0.75**k * seen[3 - k][name] for k in range(3))
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, seen[3][name])
    assert not any(module.training for module in average.model.modules())
    assert not any(p.requires_grad for p in average.model.parameters())


@pytest.mark.parametrize(("epochs", "start"), [(200, 105), (110, 57), (2, 1), (1, 0)])
def test_averaging_starts_in_proportion_and_never_too_late(epochs: int, start: int) -> None:
    assert WeightAveraging().start_at(epochs) == start < epochs
    assert WeightAveraging(start_epoch=7).start_at(epochs) == 7


def test_rebat_follows_the_average_from_its_start_and_spends_no_pass_before() -> None:
    recorder = Recorder()
    loop = make_loop(method_with("rebat", ra=True), callbacks=(recorder,), wa=WITH["wa"]["wa"])
    count = CountForwards(loop.averaging.model)
    loop.run()
    assert [set(terms_of(record)) for record in recorder.steps] == [{"ce"}] * 3 + [{"ce", "ra"}] * 3
    assert (count.train, count.eval) == (0, 3 * 2)
    assert [epoch.forward for epoch in recorder.epochs] == [3 * (2 + 1)] * 2


def test_the_scheduled_beta_follows_the_learning_rate() -> None:
    recorder = Recorder()
    method = METHODS["rebat"](beta_schedule="scheduled")
    loop = make_loop(method, callbacks=(recorder,), wa=WeightAveraging(decay=0.9, start_epoch=0))
    betas: list[float] = []
    loop.method = lambda step: (betas.append(beta_at(step, 1.0, "scheduled")), method(step))[1]
    loop.run()
    for beta, record in zip(betas, recorder.steps, strict=True):
        assert beta == pytest.approx((0.1 / record.lr - 1) / 2)
    assert betas[-1] > betas[0]


# ---- awp


def context(model: nn.Module, batch: Batch, bn_mode: str = "eval", **changes: Any) -> StepContext:
    return StepContext(
        model, PGD(Threat("Linf", 8 / 255), 2 / 255, 2, bn_mode=bn_mode), *batch, **changes
    )


def loss_of(method: Any) -> Any:
    return lambda step: sum(method(step).terms.values())


def test_awp_takes_one_relative_step_up_the_loss_and_comes_back(
    net: nn.Module, batch: Batch
) -> None:
    method, step = METHODS["pgd"](), context(net, batch)
    seen: list[Tensor] = []

    def watched(step: StepContext) -> Tensor:
        seen.append(method(step).x_adv)
        return loss_of(method)(replace(step, attack=lambda *_: seen[-1]))

    before = snapshot(net)
    with WeightPerturbation(gamma=0.1).worst_weights(step, watched) as inside:
        at = dict(net.named_parameters())
        perturbed = {name: p.detach().clone() for name, p in at.items()}
        outcome = method(inside)
        assert torch.equal(
            outcome.x_adv, seen[0]
        )  # the very examples that the direction was found on
    for name, p in at.items():
        if p.ndim == 1:
            assert torch.equal(perturbed[name], before["state"][name])
        else:
            step_taken = perturbed[name] - before["state"][name]
            assert step_taken.norm() == pytest.approx(
                0.1 * before["state"][name].norm().item(), rel=1e-4
            )
    assert all(torch.equal(p, before["state"][name]) for name, p in net.named_parameters())
    assert all(p.grad is None for p in net.parameters())
    clean = F.cross_entropy(net(seen[0]), batch[1])
    assert outcome.terms["ce"] > clean + 1e-3


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_awp_moves_statistics_as_often_as_training_without_it(
    net: nn.Module, batch: Batch, bn_mode: str
) -> None:
    method = METHODS["pgd"]()
    with WeightPerturbation().worst_weights(
        context(net, batch, bn_mode), loss_of(method)
    ) as inside:
        loss_of(method)(inside)
    expected = (
        1 if bn_mode == "eval" else 1 + 2
    )  # the training pass, and the attack's where they count
    assert net[1].num_batches_tracked.item() == expected


FIRST = ("standard", "noise", "pgd", "trades", "mart", "consistency", "rebat")


class Counted:
    """An attack that counts its calls."""

    def __init__(self, attack: PGD) -> None:
        self.attack, self.calls = attack, 0

    def __call__(self, *args: Any) -> Tensor:
        self.calls += 1
        return self.attack(*args)

    def perturb(self, *args: Any, **keys: Any) -> Tensor:
        self.calls += 1
        return self.attack.perturb(*args, **keys)


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].own_examples])
def test_awp_attacks_no_second_time(name: str, batch: Batch) -> None:
    method, calls = method_with(name, ra=False), []
    for gamma in (0.0, 0.01):
        loop = make_loop(method)
        attack = Counted(attack_of(method, Threat("Linf", 8 / 255)))
        step = replace(
            context(loop.model, batch, teacher=tiny_net().eval()),
            attack=attack,
            networks=loop.networks.by_name(),
            state=loop.memory.state,
        )
        with WeightPerturbation(gamma).worst_weights(step, loss_of(method)) as inside:
            loss_of(method)(inside).backward()
        calls.append(attack.calls)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("name", FIRST)
def test_awp_costs_one_more_loss_and_no_second_attack(name: str, batch: Batch) -> None:
    method = method_with(name, ra=False)
    spent = {}
    for gamma in (0.0, 0.01):
        model = tiny_net()
        step = context(model, batch, teacher=tiny_net().eval())
        with (
            count_passes(model) as passes,
            WeightPerturbation(gamma).worst_weights(step, loss_of(method)) as inside,
        ):
            loss_of(method)(inside).backward()
        spent[gamma] = passes
    loss_passes = {"trades": 2, "mart": 2}.get(name, 1)
    target = 1 if name == "trades" else 0  # the clean prediction that its attack leaves
    assert spent[0.01].forward - spent[0.0].forward == loss_passes + target
    assert spent[0.01].backward - spent[0.0].backward == loss_passes


def test_awp_of_gamma_0_or_before_its_epoch_changes_no_bit() -> None:
    def trained(awp: WeightPerturbation | None) -> dict[str, Tensor]:
        loop = make_loop(awp=awp)
        loop.run()
        return weights(loop)

    plain = trained(None)
    assert same(plain, trained(WeightPerturbation(gamma=0)))
    assert same(plain, trained(WeightPerturbation(start_epoch=2)))
    assert not same(plain, trained(WeightPerturbation(start_epoch=1)))


def test_awp_restores_the_weights_when_the_step_fails(net: nn.Module, batch: Batch) -> None:
    before = snapshot(net)
    with (
        pytest.raises(KeyboardInterrupt),
        WeightPerturbation(gamma=0.1).worst_weights(context(net, batch), loss_of(METHODS["pgd"]())),
    ):
        raise KeyboardInterrupt
    assert_same(before, snapshot(net))


# ----
# parts, clipping, stages


def without_batchnorm() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(parts: int) -> None:
    trained, losses = [], []
    for accumulate in (1, parts):
        recorder = Recorder()
        loop = make_loop(
            METHODS["standard"](),
            model=without_batchnorm(),
            accumulate=accumulate,
            callbacks=(recorder,),
            epochs=1,
        )
        loop.augment = lambda x: x
        loop.run()
        trained.append(weights(loop))
        losses.append(recorder.steps[0].terms["loss"])
        assert recorder.epochs[0].forward == 3 * len(torch.arange(8).chunk(accumulate))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", [None, torch.float16]
)  # float16 gradients are scaled until they are clipped
def test_a_gradient_longer_than_clip_norm_is_shortened_to_it(dtype: torch.dtype | None) -> None:
    lengths = {}
    for clip in (None, 0.01, 1e6):
        loop = make_loop(
            clip_norm=clip, epochs=1, should_stop=lambda loop: loop.step == 1, dtype=dtype
        )
        before = weights(loop)
        loop.run()
        moved = [
            (weights(loop)[name] - before[name]).flatten()
            for name, _ in loop.model.named_parameters()
        ]
        lengths[clip] = torch.cat(moved).norm().item() / loop.optimizer.param_groups[0]["lr"]
    assert lengths[None] == lengths[1e6] > 0.01
    assert lengths[0.01] == pytest.approx(0.01, rel=1e-3)


def test_another_attack_and_other_augmentations_take_over_from_their_epoch_on() -> None:
    seen: list[tuple[int, float, float]] = []
    attack = PGD(Threat("Linf", 0.1), 0.1, 2)
    loop = make_loop(
        late_attack=FromEpoch(1, attack), late_augment=FromEpoch(2, lambda x: x * 0), epochs=3
    )
    method = loop.method

    def watched(step: StepContext) -> Any:
        outcome = method(step)
        seen.append(
            (step.epoch, (outcome.x_adv - outcome.x).abs().max().item(), step.x.max().item())
        )
        return outcome

    loop.method = watched
    loop.run()
    assert all(
        reach == pytest.approx(8 / 255 if epoch == 0 else 0.1, abs=1e-6) for epoch, reach, _ in seen
    )
    assert [brightest > 0 for _, _, brightest in seen] == [True] * 6 + [False] * 3


def test_an_order_of_its_own_decides_which_images_an_epoch_sees() -> None:
    seen: list[Tensor] = []
    order = SharedOrder(main=16, extra=8, batch_size=8, share=0.25)
    loop = make_loop(order=order, epochs=1)
    loop.augment = lambda x: (seen.append(x), x)[1]
    loop.run()
    assert loop.steps_per_epoch == len(seen) == 2
    extra = images().tensors()[0][16:]
    for batch in seen:
        assert sum((image == extra).flatten(1).all(dim=1).any().item() for image in batch) == 2
