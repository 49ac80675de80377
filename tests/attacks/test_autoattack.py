"""The adapter alone; that it comes to AutoAttack's own flags is tested with the evaluation that
drives it."""

import logging
import random
import sys

import numpy as np
import pytest
import torch
from helpers import assert_same, snapshot, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks.autoattack import VERSIONS, AutoAttack, Ensemble
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError

LINF = Threat("Linf", 0.05)


def ensemble(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat = LINF, **options: object
) -> Ensemble:
    return AutoAttack(threat, **options).on(model, x, y)


def quick(attacks: Ensemble) -> Ensemble:
    """The same attacks with a few iterations each."""
    library = attacks._attacks
    for attack in (library.apgd, library.apgd_targeted):
        attack.n_iter = attack.n_iter_orig = 3
    library.fab.n_iter, library.square.n_queries = 2, 3
    return attacks


def images(n: int = 6, classes: int = 10, side: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 3, side, side), torch.arange(n) % classes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "standart"}, "Did you mean 'standard'?"),
        ({"version": "custom", "attacks": ("apgd-cee", "squar")}, "Did you mean 'square'?"),
        ({"version": "custom"}, "a custom AutoAttack needs a list"),
    ],
)
def test_mistakes_say_what_is_right(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        AutoAttack(LINF, **options)
    assert said in str(error.value)


def test_budgets_are_those_of_the_published_versions() -> None:
    x, y = images()
    standard = ensemble(tiny_net(), x, y)
    assert standard.names == VERSIONS["standard"]
    assert standard.settings("apgd-ce") | {
        "n_restarts": 1,
        "n_iter": 100,
        "loss": "ce",
    } == standard.settings("apgd-ce")
    assert (
        standard.settings("apgd-t")["n_target_classes"]
        == standard.settings("fab-t")["n_target_classes"]
        == 9
    )
    assert standard.settings("square")["n_queries"] == 5000
    plus = ensemble(tiny_net(), x, y, version="plus")
    assert (plus.settings("fab")["n_restarts"], plus.settings("fab-t")["n_restarts"]) == (5, 1)
    assert plus.settings("fab")["n_restarts"] == 5  # whatever was asked for in between
    assert ensemble(tiny_net(), x, y, version="rand").settings("apgd-dlr")["eot_iter"] == 20
    l1 = ensemble(tiny_net(), x, y, Threat("L1", 2.0))
    assert l1.settings("apgd-t")["n_target_classes"] == 5
    assert l1.settings("apgd-ce")["use_largereps"]


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_targets_never_exceed_the_other_classes(classes: int) -> None:
    attacks = ensemble(tiny_net(classes=classes), *images(classes=classes))
    assert attacks.settings("fab-t")["n_target_classes"] == classes - 1
    assert ("apgd-t" in attacks.names) == (classes >= 4)


def test_what_is_not_defined_is_named_with_its_reason() -> None:
    with pytest.raises(
        ConfigError, match="apgd-t left out: it needs at least 4 classes, the model has 3"
    ) as error:
        ensemble(tiny_net(classes=3), *images(classes=3), attacks=("apgd-t",))
    assert "Defined here: apgd-ce, apgd-dlr, fab, fab-t, square" in str(error.value)
    assert ensemble(tiny_net(classes=2), *images(classes=2), version="rand").names == ("apgd-ce",)
    small = ensemble(tiny_net(), *images(side=4), threat=Threat("L2", 0.5))
    assert small.notes == [
        "square left out: in L2 it needs images of at least 5 x 5 pixels, not 4 x 4"
    ]


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_it_leaves_model_random_state_and_tracer_as_they_were(
    norm: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_net().train()
    model[2].eval()  # a mode of its own
    model[0].weight.requires_grad_(False)
    x, y = images()
    model(x).sum().backward()
    before, x_before = snapshot(model), x.clone()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()

    def tracer(frame: object, event: str, argument: object) -> None:
        return None

    old_tracer = sys.gettrace()
    sys.settrace(tracer)
    try:
        with caplog.at_level(logging.WARNING):
            attacks = quick(ensemble(model, x, y, Threat(norm, 0.5), version="plus"))
            for name in attacks.names:
                attacks.perturb(name, x, y)
        kept = sys.gettrace()
    finally:
        sys.settrace(old_tracer)
    assert kept is tracer
    assert_same(before, snapshot(model))
    assert torch.equal(x, x_before)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not caplog.records
    assert capsys.readouterr().out == ""


class Odd(nn.Module):
    """The tiny network with something odd at its end."""

    def __init__(self, oddity: str) -> None:
        super().__init__()
        self.net, self.oddity = tiny_net(), oddity

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.oddity == "random":
            return logits + torch.randn_like(logits)
        if self.oddity == "softmax":
            return logits.softmax(dim=1)
        if self.oddity == "dynamic":
            with torch.enable_grad():
                inside = x.detach().requires_grad_()
                return logits + 0 * torch.autograd.grad(self.net(inside).sum(), inside)[0].sum()
        return logits


@pytest.mark.parametrize(
    ("oddity", "said"),
    [("random", "randomized"), ("softmax", "probability distribution"), ("dynamic", "dynamic")],
)
def test_autoattacks_own_warnings_are_collected_and_taint_no_other_model(
    oddity: str, said: str
) -> None:
    x, y = images()
    flags = ensemble(Odd(oddity), x, y).flags
    assert len(flags) == 1
    assert said in flags[0]
    assert ensemble(Odd("none"), x, y).flags == []


def test_zero_gradients_and_a_strong_square_are_flagged() -> None:
    x, _ = images()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 10), nn.Hardtanh(-1e-6, 1e-6)
    )  # flat nearly everywhere
    attacks = quick(ensemble(model, x, model(x).argmax(1), version="rand"))
    attacks.perturb("apgd-dlr", x, model(x).argmax(1))
    assert any("zero gradient" in flag for flag in attacks.flags)
    attacks.look_at_result({"clean": 0.9, "apgd-ce": 0.5, "square": 0.4})
    assert any("Square Attack has decreased" in flag for flag in attacks.flags)


def test_the_published_package_serves_where_only_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`autoattack` (GitHub) differs in its constructor and in what it calls on its logger."""
    import types

    import pyautoattack
    from pyautoattack import checks

    def constructor(
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: tuple[str, ...] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str = "cuda",
        log_path: str | None = None,
    ) -> object:
        assert not verbose
        return pyautoattack.AutoAttack(
            model, norm=norm, eps=eps, seed=seed, version=version, device=device
        )

    package = types.ModuleType("autoattack")
    package.AutoAttack = constructor
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    monkeypatch.setitem(sys.modules, "autoattack", package)
    monkeypatch.setitem(sys.modules, "autoattack.checks", checks)
    monkeypatch.setattr("rpat_cli.attacks.autoattack.installed_version", lambda _: "0.1")
    attacks = ensemble(Odd("softmax"), *images())
    assert attacks.library == "autoattack 0.1"
    attacks._log.log("a warning, the other way")
    assert len(attacks.flags) == 2
