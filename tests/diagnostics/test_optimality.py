"""Attacks whose smallest perturbations are known are as good as AttackBench's definition says."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from test_eps_curve import MEANS, Brightness, X, Y
from torch import nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.row import AttackRow
from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.base import Subject
from rpat_cli.diagnostics.optimality import GRID, Attacked, Optimality, measure
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import parse_suite

INF = math.inf


def subject(suite: str, threat: Threat, **others: Any) -> Subject:
    return Subject(
        Brightness(),
        X,
        Y,
        threat,
        torch.device("cpu"),
        0,
        attacks=parse_suite(suite),
        **others,
    )


@pytest.mark.parametrize("last", [0.3, INF])
def test_the_formula_is_that_of_the_curves(last: float) -> None:
    """Against sums over a fine grid of the two step functions."""
    found = {"a": [0, 0.1, 0.2, last], "b": [0, 0.05, INF, INF], "c": [0, INF, INF, INF]}
    attacks = tuple(Attacked(label, tuple(map(float, d)), 8, 4) for label, d in found.items())
    result = Optimality(Threat("Linf", 0.1), 0.4, attacks)
    best = np.min([found[label] for label in found], axis=0)
    end = min(0.4, best.max())
    eps = (np.arange(100_000) + 0.5) / 100_000 * end
    rho = {
        label: np.mean([d > eps for d in np.array(distances)[:, None]], axis=0)
        for label, distances in {**found, "best": best}.items()
    }
    for attack in attacks:
        above = np.sum(rho[attack.label] - rho["best"])
        expected = 1 - above / np.sum(0.75 - rho["best"])
        assert result.of(attack) == pytest.approx(expected, abs=1e-4)
    assert result.of(attacks[2]) == pytest.approx(0)
    assert result.best.forward == 24


def test_bisection_finds_the_radius_of_each_image() -> None:
    """In Linf an image of mean m falls at m - 1/2: PGD needs the next radius of the grid."""
    result = measure(subject("clean,pgd-20,noise", Threat("Linf", 0.1)))
    assert [attack.label for attack in result.attacks] == ["pgd-20", "noise"]
    step = 0.4 / GRID
    exact = (MEANS - 0.5).clamp_min(0).tolist()
    expected = [math.ceil(d / step) * step if d < 0.4 else INF for d in exact]
    assert result.attacks[0].distances == pytest.approx(expected, abs=1e-5)
    pgd, noise = result.attacks
    assert result.of(pgd) == pytest.approx(1, abs=0.02)
    assert 0 <= result.of(noise) < 0.3
    assert pgd.robust_acc(0.1) == 4 / 8
    assert pgd.backward >= 20 * 5 * 7  # five radii or six of each image that is right
    assert noise.backward == 0


def test_a_search_for_the_smallest_perturbation_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def darker(threat: Threat) -> Any:
        def attack(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            needed = (x.mean(dim=(1, 2, 3), keepdim=True) - 0.5 + 1e-4).clamp_min(0)
            return x - needed * (needed <= threat.eps)

        return attack

    row = AttackRow(darker, minimizes=True)
    monkeypatch.setitem(ATTACKS._entries, "darker", row)
    result = measure(subject("darker,pgd-20", Threat("Linf", 0.1)))
    exact = (MEANS - 0.5).clamp_min(0).tolist()
    expected = [d + 1e-4 if 0 < d < 0.4 else (INF if d else 0) for d in exact]
    darker_, pgd = result.attacks
    assert darker_.distances == pytest.approx(expected, abs=1e-5)
    assert darker_.forward == 7  # each image that is right, once, to verify
    assert result.of(darker_) == 1 > result.of(pgd)


def test_it_comes_back_from_json_and_shows_every_attack() -> None:
    result = measure(subject("pgd-5,fgsm", Threat("Linf", 0.1)))
    saved = json.loads(json.dumps(result.to_dict()))
    assert Optimality.from_dict(saved) == result
    table = result.section().blocks[-1]
    assert [row.cells[0] for row in table.rows][-1] == "best known"
    with pytest.raises(ValueError, match="each image"):
        Optimality.from_dict({**saved, "attacks": []})


def test_what_no_attack_breaks_has_no_optimality() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :2]

    s = subject("fgsm", Threat("Linf", 0.1))
    result = measure(Subject(Constant(), s.x, s.y, s.threat, s.device, 0, attacks=s.attacks))
    assert math.isnan(result.of(result.attacks[0]))
    assert result.to_dict()["attacks"][0]["optimality"] is None


def test_attacks_have_to_be_named() -> None:
    with pytest.raises(ConfigError, match="none is given"):
        measure(subject("clean", Threat("Linf", 0.1)))
