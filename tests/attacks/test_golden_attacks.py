"""Adversarial images, targets and verdicts against those recorded from the published attacks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import GOLDEN_FAMILIES, Golden, family_of, golden_files
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.a3 import A3, Descended, descend, statistics
from rpat_cli.attacks.a3_rounds import Aim, Round, final_aim
from rpat_cli.attacks.targeted import Targeted
from rpat_cli.attacks.targets import by_logits, malt_scores
from rpat_cli.attacks.threat import Threat
from rpat_cli.passes import count_passes

LOSSES = {"probability margin": "pma", "logit margin": "md"}
"""What the published code of one scheme calls its two losses, and our words for them."""


def threat_of(golden: Golden) -> Threat:
    return Threat(golden.hyper.get("norm", "Linf"), golden.hyper.get("epsilon", 0.1))


def eval_model(golden: Golden) -> nn.Module:
    return golden.model().eval()


def assert_same(x_adv: Tensor, golden: Golden, model: nn.Module) -> None:
    torch.testing.assert_close(x_adv, golden["x_adv"], rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(model(x_adv).argmax(1) == golden["y"], golden["robust"])


def check_margin_decomposition(golden: Golden) -> None:
    starts = torch.stack([golden["start_noise_stage0"], golden["start_noise_stage1"]])
    word = LOSSES[golden.hyper["loss"]]
    attack = ATTACKS[word](threat_of(golden), steps=golden.hyper["steps"], start=starts)
    model = eval_model(golden)
    assert_same(attack(model, *golden.batch), golden, model)


def check_minimum_margin(golden: Golden) -> None:
    hyper, model = golden.hyper, eval_model(golden)
    x, y = golden.batch
    attack = ATTACKS["mm"](
        threat_of(golden),
        steps=hyper["steps"],
        targets=hyper["k"],
        restarts=hyper.get("n_restarts", 1),
        rho=hyper.get("rho", 0.75),
        start=golden["start_noise"],
    )
    attacked: list[tuple[int, Tensor, Tensor]] = []
    original = Targeted._toward

    def watched(self: Targeted, model: nn.Module, x: Tensor, y: Tensor, *rest: object) -> Tensor:
        target, number, left = rest
        attacked.append((number, left, target[left]))
        return original(self, model, x, y, target, number, left)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Targeted, "_toward", watched)
        x_adv = attack(model, x, y)
    assert_same(x_adv, golden, model)
    targets = torch.full_like(golden["targets"], -1)
    for number, left, target in attacked:
        targets[number, left] = target
    assert torch.equal(targets, golden["targets"])
    assert torch.equal(targets >= 0, golden["alive"])


def check_malt(golden: Golden) -> None:
    hyper, model = golden.hyper, eval_model(golden)
    x, y = golden.batch
    logits = model(x).detach()
    attack = ATTACKS["malt"](threat_of(golden), targets=hyper["k"], candidates=hyper["testk"])
    planned = torch.stack(attack.plan(model, x, y, logits, torch.arange(len(x)))).T
    assert torch.equal(planned, golden["targets"])
    candidates = by_logits(model, x, y, logits)[:, : hyper["testk"]]
    assert torch.equal(candidates, golden["candidates"])
    scores = malt_scores(model, x, y, candidates, hyper["norm"])
    torch.testing.assert_close(scores, golden["scores"], rtol=1e-9, atol=0)


def check_odi(golden: Golden) -> None:
    hyper, model = golden.hyper, eval_model(golden)
    attack = ATTACKS["odi-pgd"](
        threat_of(golden),
        steps=hyper["steps"],
        restarts=1,
        step_size=hyper["step_size"],
        odi_steps=hyper["odi_steps"],
        odi_step_size=hyper["odi_step_size"],
        loss={"xent": "ce"}.get(hyper["loss"], hyper["loss"]),
        start=golden["start_noise"],
        direction=golden["direction"],
    )
    assert_same(attack(model, *golden.batch), golden, model)


def aimed(golden: Golden) -> Tensor:
    """The recorded directions with the two entries that a round sets."""
    hyper, w = golden.hyper, golden["direction_raw"]
    if hyper["out_re"] < 2:
        return w
    scale, classes = w.shape[1] / 10, w.shape[1]
    u = hyper["y_draw"]
    if hyper["final"]:
        template = final_aim(classes, hyper["biased"], 0.5)
    else:
        signs = (1, 1) if hyper["biased"] else (hyper["wrong_direction"], hyper["right_direction"])
        template = Aim.drawn(classes, *signs, 0.5)
    own = template.own if hyper["final"] and hyper["biased"] else scale * u
    aim = Aim(template.target, own, template.targets)
    return aim.applied(w, golden["sorted_classes"], golden["y"], hyper["round"])


def check_a3(golden: Golden) -> None:
    hyper, model = golden.hyper, eval_model(golden)
    x, y = golden.batch
    w = aimed(golden)
    torch.testing.assert_close(w, golden["direction"], rtol=0, atol=1e-9)
    plan = Round(1.0, hyper["steps"], hyper["adi_steps"])
    with count_passes(model) as passes:
        start = (x + golden["start_noise"]).clamp(0, 1)
        result: Descended = descend(A3(threat_of(golden)), model, x, y, start, w, plan)
    assert_same(result.x_adv, golden, model)
    assert torch.equal(~result.wrong, golden["robust"])
    torch.testing.assert_close(result.margin, golden["best_margin"], rtol=0, atol=1e-9)
    assert passes.forward_samples <= golden["forward_images"]
    table = torch.zeros_like(golden["table"])
    if hyper["round"] >= 0 and hyper["adi_steps"]:
        fell = result.wrong
        table += statistics(w[fell], golden["sorted_classes"][fell], result.fell_to[fell])
    torch.testing.assert_close(table, golden["table"], rtol=0, atol=1e-9)


CHECKS: dict[str, Callable[[Golden], None]] = {
    "pma": check_margin_decomposition,
    "md": check_margin_decomposition,
    "mm": check_minimum_margin,
    "malt": check_malt,
    "odi_pgd": check_odi,
    "a3": check_a3,
}


def test_there_is_a_set_of_every_family() -> None:
    own = {family_of(file, list(CHECKS)) for file in golden_files("attacks")}
    assert own == set(CHECKS) == set(GOLDEN_FAMILIES["attacks"])


@pytest.mark.parametrize("file", golden_files("attacks"), ids=lambda file: file.stem)
def test_it_is_the_published_attack(file: Path) -> None:
    family = family_of(file, list(CHECKS))
    CHECKS[family](Golden(family, file))
