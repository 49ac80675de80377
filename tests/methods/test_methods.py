"""Composition, skipping, passes, hyper-parameters: what the recorded steps don't show."""

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import CountForwards, assert_same, snapshot, tiny_net
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import DEFAULT_EPS, Threat
from rpat_cli.data import MIXINGS
from rpat_cli.engine import COLLABORATORS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Method, Outcome, StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.losses import jsd, kl

Batch = tuple[Tensor, Tensor]
FORMS = ["mse", "paper", "kl", "cosine", "teacher-kl"]
STEPS = 3


def context(
    model: nn.Module, method: Any, batch: Batch, norm: str = "Linf", **changes: Any
) -> StepContext:
    threat = Threat(norm, DEFAULT_EPS[norm])
    settings = {"steps": STEPS, **method.attack_defaults}
    if "step_per_eps" in settings:
        settings["step_size"] = settings.pop("step_per_eps") * threat.eps
    x, y = batch
    asked = {
        "networks": {name: teacher() for name in method.networks},
        "state": method.initial_state(10),
        "memory": {name: torch.zeros_like(x) for name in method.remembers},
        **changes,
    }
    return StepContext(model, ATTACKS["pgd"](threat, **settings), x, y, **asked)


def updated(method: Method, batch: Batch, **changes: Any) -> dict[str, Any]:
    """The model after one step of SGD from a fixed seed, with its statistics."""
    torch.manual_seed(7)
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(method(context(model, method, batch, **changes)).terms.values()).backward()
    optimizer.step()
    return snapshot(model)


DATACLASSES: tuple[Mapping[str, Any], ...] = (
    METHODS, REGULARIZERS, COLLABORATORS, MIXINGS, SCHEDULES,
)  # fmt: skip


def teacher() -> nn.Module:
    return tiny_net().eval()


ON_EVERY_FORM = ("pgd", "trades", "consistency", "rebat")
"""What a form makes of an outcome does not depend on the method: all forms on a few."""
RA = [
    (name, form)
    for name in METHODS
    for form in ([None, *FORMS] if name in ON_EVERY_FORM else [None, "mse"])
]


@pytest.mark.parametrize("norm", DEFAULT_EPS)
@pytest.mark.parametrize(("name", "form"), RA)
def test_every_method_with_and_without_ra_in_every_norm(
    name: str, form: str | None, norm: str, batch: Batch
) -> None:
    method = compose(METHODS[name](), *([REGULARIZERS["ra"](form=form)] if form else []))
    model = tiny_net()
    outcome = method(context(model, method, batch, norm, teacher=teacher()))
    sum(outcome.terms.values()).backward()
    assert all(term.ndim == 0 and torch.isfinite(term) for term in outcome.terms.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert ("ra" in outcome.terms) == (form is not None)
    assert outcome.x_adv.shape == outcome.x.shape
    if not METHODS[name].own_examples:  # those have radii of their own
        reach = 3 if METHODS[name].leaves_ball else 1
        assert Threat(norm, reach * DEFAULT_EPS[norm]).contains(outcome.x, outcome.x_adv).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_the_attacks_own_loss_is_used(name: str, batch: Batch) -> None:
    method = METHODS[name]()
    found = []
    for loss in ("ce", "margin"):
        torch.manual_seed(3)
        step = context(tiny_net(), method, batch)
        attack = replace(step.attack, loss=loss, keep="last")
        torch.manual_seed(4)
        found.append(method(replace(step, attack=attack)).x_adv)
    attacked = method.uses_attack and method.attack_defaults.get("steps") != 0
    # Of its two bases `adr` follows the loss in one: there, too, with labels of its own.
    follows = name == "adr" or not (method.inner_loss or method.own_examples)
    assert torch.equal(*found) != (attacked and follows)


@pytest.mark.parametrize(("name", "form"), [each for each in RA if each[1]])
def test_weight_zero_and_before_its_epoch_ra_is_not_there(
    name: str, form: str, batch: Batch
) -> None:
    guide = teacher()
    bare = updated(METHODS[name](), batch, teacher=guide, epoch=3)
    for settings in ({"weight": 0.0}, {"start_epoch": 4}):
        with_ra = compose(METHODS[name](), REGULARIZERS["ra"](form=form, **settings))
        assert_same(bare, updated(with_ra, batch, teacher=guide, epoch=3))
    from_now = compose(METHODS[name](), REGULARIZERS["ra"](form=form, start_epoch=3))
    with pytest.raises(AssertionError, match="changed"):
        assert_same(bare, updated(from_now, batch, teacher=guide, epoch=3))


def test_the_papers_form_is_the_published_scale_over_a_square(batch: Batch) -> None:
    for mix in (0.5, 0.3):
        terms = []
        for form in ("mse", "paper"):
            torch.manual_seed(3)
            method = compose(METHODS["trades"](), REGULARIZERS["ra"](form=form, mix=mix))
            terms.append(method(context(tiny_net(), method, batch)).terms["ra"].item())
        assert terms[1] == pytest.approx(terms[0] / (mix * (1 - mix)) ** 2, rel=1e-5)
    with pytest.raises(ValueError, match="0 < mix < 1"):
        REGULARIZERS["ra"](form="paper", mix=1.0)


def test_the_papers_form_is_its_formula(batch: Batch) -> None:
    net, mix = tiny_net().eval(), 0.3
    method = compose(METHODS["trades"](), REGULARIZERS["ra"](form="paper", mix=mix))
    outcome = method(context(net, method, batch))
    x, x_adv = outcome.x, outcome.x_adv
    at_mix = net((1 - mix) * x + mix * x_adv)
    slopes = (at_mix - net(x)) / mix, (net(x_adv) - at_mix) / (1 - mix)
    assert outcome.terms["ra"].item() == pytest.approx(F.mse_loss(*slopes).item(), rel=1e-4)


def test_consistency_weight_zero_is_pgd(batch: Batch) -> None:
    assert_same(updated(METHODS["pgd"](), batch), updated(METHODS["consistency"](weight=0), batch))


# train-mode passes of the student: f(x') and f(x) where the loss has them; ra adds f(x_mix), and
# f(x) if it is missing
PASSES = {"standard": 1, "noise": 1, "pgd": 1, "trades": 2, "mart": 2, "consistency": 1}


@pytest.mark.parametrize("name", PASSES)
def test_each_distinct_pass_runs_once(name: str, batch: Batch) -> None:
    ours = PASSES[name]
    has_clean = name in ("standard", "trades", "mart")
    for weight, expected in ((0.0, ours), (1.0, ours + (1 if has_clean else 2))):
        model = tiny_net()
        count = CountForwards(model)
        method = compose(METHODS[name](), REGULARIZERS["ra"](weight=weight))
        method(context(model, method, batch))
        assert count.train == expected
        assert count.eval == {"standard": 0, "noise": 0, "trades": STEPS + 1}.get(name, STEPS)


@pytest.mark.parametrize(("ra", "passes"), [(False, 1), (True, 2)])
def test_teacher_passes_of_rebat(ra: bool, passes: int, batch: Batch) -> None:
    method = compose(METHODS["rebat"](), *([REGULARIZERS["ra"](form="teacher-kl")] if ra else []))
    guide, model = teacher(), tiny_net()
    before = snapshot(guide)
    of_teacher, of_student = CountForwards(guide), CountForwards(model)
    outcome = method(context(model, method, batch, teacher=guide))
    sum(outcome.terms.values()).backward()
    assert of_teacher.eval == passes
    assert of_student.total == STEPS + 1
    assert outcome.terms.keys() == {"ce", "ra" if ra else "teacher_kl"}
    assert_same(before, snapshot(guide))  # no gradient reaches the teacher


def test_rebat_before_averaging_is_plain(batch: Batch) -> None:
    method = compose(METHODS["rebat"](), REGULARIZERS["ra"](form="teacher-kl"))
    outcome = method(context(tiny_net(), method, batch))
    assert outcome.terms.keys() == {"ce"}


@pytest.mark.parametrize("ra", [False, True])
def test_beta_weighs_the_teachers_term_with_and_without_ra(ra: bool, batch: Batch) -> None:
    guide = teacher()

    def term(lr_ratio: float = 1.0, **settings: Any) -> float:
        torch.manual_seed(3)
        method = compose(
            METHODS["rebat"](**settings), *([REGULARIZERS["ra"](form="teacher-kl")] if ra else [])
        )
        terms = method(context(tiny_net(), method, batch, teacher=guide, lr_ratio=lr_ratio)).terms
        return float(terms["ra" if ra else "teacher_kl"].detach())

    assert term(beta=2.5) == pytest.approx(2.5 * term(), rel=1e-6)
    assert term(lr_ratio=10.0) == term()
    assert term(lr_ratio=10.0, beta_schedule="scheduled") == pytest.approx(4.5 * term(), rel=1e-6)


@pytest.mark.parametrize("form", ["mse", "kl", "cosine"])
@pytest.mark.parametrize("mix", [0.0, 0.25, 1.0])
def test_ra_by_hand(form: str, mix: float, net: nn.Module, batch: Batch) -> None:
    net.eval()
    x, y = batch
    x_adv = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    outcome = Outcome({}, x, x_adv, net(x_adv))
    ra = REGULARIZERS["ra"](weight=3.0, mix=mix, form=form)
    ours = ra(StepContext(net, None, x, y), outcome)["ra"]
    at_mix, even = net((1 - mix) * x + mix * x_adv), (1 - mix) * net(x) + mix * net(x_adv)
    p, q = even.softmax(1), at_mix.softmax(1)
    expected = {
        "mse": (at_mix - even).square().sum() / at_mix.numel(),
        "kl": (p * (p / q).log()).sum() / len(x),
        "cosine": (1 - (at_mix * even).sum(1) / (at_mix.norm(dim=1) * even.norm(dim=1))).mean(),
    }[form]
    torch.testing.assert_close(ours, 3 * expected, rtol=1e-4, atol=1e-6)
    if mix in (0.0, 1.0):
        assert float(ours.detach()) == pytest.approx(0, abs=1e-5)


def test_ra_vanishes_on_a_linear_model(batch: Batch) -> None:
    x, y = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).double()
    outcome = Outcome({}, x.double(), 1 - x.double(), model(1 - x.double()))
    assert REGULARIZERS["ra"](mix=0.3)(StepContext(model, None, x, y), outcome)["ra"].item() < 1e-25


def test_divergences_by_hand() -> None:
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    p, q = a.softmax(1), b.softmax(1)
    torch.testing.assert_close(kl(a, b), (p * (p / q).log()).sum() / 5)
    p, q = (a / 0.5).softmax(1), (b / 0.5).softmax(1)
    m = (p + q) / 2
    expected = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2 / 5
    torch.testing.assert_close(jsd(a, b, 0.5), expected)
    assert jsd(a, a, 0.5).abs() < 1e-15
    rare, rarer = (
        torch.tensor([[0.0, x, y]], dtype=torch.float64) for x, y in ((-12, -30), (-13, -25))
    )
    p, q = rare.softmax(1), rarer.softmax(1)
    m = ((p + q) / 2).clamp(min=1e-8)  # which the last class is below
    expected = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    torch.testing.assert_close(jsd(rare, rarer, 1.0), expected, rtol=1e-9, atol=0)
    sure = torch.tensor([[1e4, 0.0], [0.0, 1e4]], dtype=torch.float64)
    assert jsd(sure, sure.flip(1), 1.0).item() == pytest.approx(torch.tensor(2.0).log().item())


def test_noise_method_uses_the_noise_as_it_is(batch: Batch) -> None:
    method, model = METHODS["noise"](), tiny_net()
    torch.manual_seed(5)
    outcome = method(context(model, method, batch))
    torch.manual_seed(5)
    eps = DEFAULT_EPS["Linf"]
    noisy = (batch[0] + torch.empty_like(batch[0]).uniform_(-eps, eps)).clamp(0, 1)
    torch.testing.assert_close(outcome.x_adv, noisy, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        outcome.terms["ce"], F.cross_entropy(tiny_copy(model)(noisy), batch[1])
    )


def tiny_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train()  # train-mode outputs don't depend on the running statistics


@pytest.mark.parametrize("name", METHODS)
def test_autocast_leaves_no_parameter_without_gradient(name: str, batch: Batch) -> None:
    """Half-precision copies of weights, cached by a pass without graph, must not serve the training
    pass."""
    model = tiny_net()
    method = compose(METHODS[name](), REGULARIZERS["ra"]())
    with torch.autocast("cpu", torch.bfloat16):
        outcome = method(context(model, method, batch, teacher=teacher()))
    sum(outcome.terms.values()).backward()
    assert all(
        p.grad is not None and p.grad.any()
        for p in (model[0].weight, model[3].weight, model[8].weight)
    )
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_soft_labels_that_are_hard_change_nothing(name: str, batch: Batch) -> None:
    x, y = batch
    hard = updated(METHODS[name](), (x, y))
    soft = updated(METHODS[name](), (x, F.one_hot(y, 10).float()))
    for key, value in hard["state"].items():
        torch.testing.assert_close(soft["state"][key], value, rtol=1e-4, atol=1e-5)


def test_as_many_views_as_the_part_that_needs_most() -> None:
    assert (
        compose(METHODS["trades"](), REGULARIZERS["consistency"](), REGULARIZERS["ra"]()).views == 2
    )
    assert compose(METHODS["consistency"]()).views == 2
    assert compose(METHODS["rebat"](), REGULARIZERS["ra"](form="teacher-kl")).views == 1


def test_a_term_twice_is_an_error(batch: Batch) -> None:
    method = compose(METHODS["pgd"](), REGULARIZERS["ra"](), REGULARIZERS["ra"](weight=2.0))
    with pytest.raises(ConfigError, match="'ra'"):
        method(context(tiny_net(), method, batch))
    with pytest.raises(ConfigError, match="teacher term"):
        compose(METHODS["rebat"](), *[REGULARIZERS["ra"](form="teacher-kl")] * 2)


@pytest.mark.parametrize(
    "cls",
    [part for table in DATACLASSES for part in table.values()],
    ids=lambda cls: cls.__name__,
)
def test_hyper_parameters_validate_and_explain_themselves(cls: type) -> None:
    adapter = TypeAdapter(cls)
    assert adapter.validate_python({}) == cls()
    with pytest.raises(ValidationError, match=r"(?i)unexpected|extra"):
        adapter.validate_python({"no_such_field": 1})
    properties = adapter.json_schema().get("properties", {})
    assert properties.keys() == {field.name for field in fields(cls)}
    assert all(entry["description"] for entry in properties.values())


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (METHODS["trades"], {"beta": -1}),
        (METHODS["rebat"], {"beta_schedule": "linear"}),
        (METHODS["consistency"], {"temperature": 0}),
        (REGULARIZERS["ra"], {"mix": 1.5}),
        (REGULARIZERS["ra"], {"form": "l2"}),
        (REGULARIZERS["ra"], {"start_epoch": 0.5}),
    ],
)
def test_hyper_parameters_out_of_range(cls: type, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(given)
