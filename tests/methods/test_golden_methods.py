"""Losses, gradients and adversarial batches against the recorded steps of the published code."""

from pathlib import Path

import pytest
import torch
from helpers import (
    GOLDEN,
    GOLDEN_FAMILIES,
    CountForwards,
    Golden,
    family_of,
    golden_files,
)
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import StepContext
from rpat_cli.methods.compose import Composite, compose

FAMILIES = GOLDEN_FAMILIES["methods"]

every_golden_set = pytest.mark.parametrize(
    "file", golden_files("methods"), ids=lambda file: file.stem
)


def golden_of(file: Path) -> Golden:
    family = family_of(file, FAMILIES)
    assert family, f"{file} is of no known family: {', '.join(FAMILIES)}"
    return Golden(family, file)


def test_there_is_a_set_of_every_family() -> None:
    own = [file for file in golden_files("methods") if file.parent == GOLDEN]
    assert {family_of(file, FAMILIES) for file in own} == set(FAMILIES)


class Fixed:
    """Stands in for the attack with the recorded batch, so that the loss is compared on exactly
    that."""

    def __init__(self, x_adv: Tensor) -> None:
        self.x_adv = x_adv

    def __call__(self, *_: object) -> Tensor:
        return self.x_adv

    def perturb(self, *_: object, start: Tensor | None = None) -> Tensor:
        return self.x_adv


def method_of(golden: Golden) -> Composite:
    hyper = golden.hyper
    consistency = REGULARIZERS["consistency"](
        weight=hyper.get("lam"), temperature=hyper.get("temperature")
    )
    if golden.name.startswith("consistency_") and not golden.name.endswith("_ra"):
        return compose(
            METHODS[golden.name.removeprefix("consistency_")](beta=hyper["beta"]), consistency
        )
    name = golden.name.removesuffix("_ra")
    settings = {
        "consistency": {"weight": hyper.get("lam"), "temperature": hyper.get("temperature")},
        "trades": {"beta": hyper.get("beta")},
        "mart": {"beta": hyper.get("beta")},
        "rebat": {
            "beta": hyper.get("beta"),
            "beta_schedule": "scheduled" if hyper.get("use_reg_schedule") else "constant",
        },
    }.get(name, {})
    method = METHODS[name](**settings)
    if not golden.name.endswith("_ra"):
        return compose(method)
    ra = REGULARIZERS["ra"](
        weight=hyper.get("lam", 1.0), mix=1 - hyper["interp"], form=method.ra_form
    )
    return compose(method, ra)


NORMS = {"Linf": "Linf", "l_inf": "Linf", "L2": "L2", "l_2": "L2", "L1": "L1", "l_1": "L1"}
"""The published codes' names of the norms."""


def attack_of(golden: Golden) -> PGD:
    hyper = golden.hyper
    norm = NORMS[hyper.get("distance") or hyper["norm"]]
    return PGD(
        Threat(norm, hyper["epsilon"]),
        step_size=hyper["alpha"],
        steps=hyper["steps"],
        start=golden.start,
        bn_mode=hyper.get("attack_batchnorm", "eval"),
    )


def context(golden: Golden, model: nn.Module, attack: object) -> StepContext:
    x, y = golden.batch
    if not golden.name.startswith("rebat"):
        return StepContext(model, attack, x, y)
    hyper = golden.hyper
    epoch = hyper["epoch"]
    averaging = hyper["use_reg_schedule"] or epoch >= hyper["warmup_epochs"]
    teacher = golden.model("state_wa").eval() if averaging else None
    stages_passed = sum(epoch >= hyper[stage] for stage in ("stage1", "stage2"))
    lr_ratio = hyper["lr_factor"] ** stages_passed
    return StepContext(model, attack, x, y, epoch=epoch, teacher=teacher, lr_ratio=lr_ratio)


def relative_gap(ours: Tensor, theirs: Tensor, scale: float) -> float:
    return float((ours - theirs).abs().max()) / scale


@every_golden_set
def test_attack_reproduces_the_adversarial_batch(file: Path) -> None:
    golden = golden_of(file)
    outcome = method_of(golden)(context(golden, golden.model(), attack_of(golden)))
    torch.testing.assert_close(outcome.x_adv, golden.x_adv, rtol=0, atol=1e-6)


@every_golden_set
@pytest.mark.parametrize("whole_step", [False, True], ids=["recorded-batch", "own-attack"])
def test_loss_and_every_gradient(file: Path, whole_step: bool) -> None:
    golden = golden_of(file)
    model = golden.model()
    attack = attack_of(golden) if whole_step else Fixed(golden.x_adv)
    outcome = method_of(golden)(context(golden, model, attack))
    loss = sum(outcome.terms.values())
    loss.backward()
    # rebat's record holds mean and std in float32
    normalized = golden.name.startswith("rebat")
    tolerance = 1e-6 if normalized else 1e-9
    assert float(loss.detach()) == pytest.approx(float(golden["loss"]), rel=tolerance)
    recorded = golden.group("grad")
    ours = {
        key.split(".", 1)[1] if normalized else key: p.grad for key, p in model.named_parameters()
    }
    assert ours.keys() == recorded.keys()
    # biases before BatchNorm have a gradient of zero but for rounding, hence one scale for all
    scale = max(float(grad.abs().max()) for grad in recorded.values())
    for key, grad in recorded.items():
        assert relative_gap(ours[key], grad, scale) < tolerance, key


@every_golden_set
def test_passes_are_never_more_than_published(file: Path) -> None:
    golden = golden_of(file)
    model = golden.model()
    count = CountForwards(model)
    method_of(golden)(context(golden, model, attack_of(golden)))
    if "n_forwards" in golden:
        assert count.total <= int(golden["n_forwards"])
    else:
        assert count.train <= int(golden["n_train_forwards"])
        assert count.eval <= int(golden["n_eval_forwards"])


@pytest.mark.parametrize("name", ["trades", "trades_ra"])
def test_the_published_second_clean_pass_changes_running_statistics_only(name: str) -> None:
    golden = golden_of(GOLDEN / f"{name}.npz")
    model, by_hand = golden.model(), golden.model()
    count = CountForwards(model)
    ra = [REGULARIZERS["ra"](mix=1 - golden.hyper["interp"])] if name.endswith("_ra") else []
    method = compose(METHODS["trades"](beta=golden.hyper["beta"], extra_clean_pass=True), *ra)
    outcome = method(context(golden, model, Fixed(golden.x_adv)))
    assert count.train == int(golden["n_train_forwards"])
    assert torch.stack(list(outcome.terms.values())).sum().item() == pytest.approx(
        float(golden["loss"]), rel=1e-9
    )
    x, x_adv = golden["x"], golden.x_adv
    x_mix = [golden.hyper["interp"] * x + (1 - golden.hyper["interp"]) * x_adv] if ra else []
    for seen in (x, x_adv, x, *x_mix):
        by_hand(seen)
    for ours, theirs in zip(model.buffers(), by_hand.buffers(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)
