"""Projections are exact, starts are inside (and spread as they should be), steps have unit
length."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rpat_cli.attacks.threat import DEFAULT_EPS, GEOMETRIES, Threat
from rpat_cli.errors import ConfigError

NORMS = ["Linf", "L2", "L1"]


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32)


@st.composite
def situations(draw: st.DrawFn) -> tuple[str, float, Tensor, Tensor]:
    """A norm, a radius, images (2, 1, 1, d) and perturbations of them, many entries tied or zero or
    huge."""
    d = draw(st.integers(1, 8))
    entry = st.sampled_from([0.0, 1.0, -1.0, 0.5]) | numbers(-4, 4)
    pixel = st.sampled_from([0.0, 1.0, 0.5]) | numbers(0, 1)
    delta = draw(st.lists(entry, min_size=2 * d, max_size=2 * d))
    x = draw(st.lists(pixel, min_size=2 * d, max_size=2 * d))
    eps = draw(st.sampled_from([0.0, 0.5, 1.0]) | numbers(0.0078125, 5))
    shape = (2, 1, 1, d)
    as_images = [torch.tensor(values, dtype=torch.float64).view(shape) for values in (x, delta)]
    return draw(st.sampled_from(NORMS)), eps, as_images[0], as_images[1]


def nearest_by_bisection(norm: str, v: Tensor, eps: float, limit: Tensor) -> Tensor:
    """The nearest point to v >= 0 in ball and box, one sample, by bisection on the KKT
    multiplier."""
    if norm == "Linf":
        return torch.minimum(v, limit.clamp_max(eps))
    form = {
        "L2": lambda m: torch.minimum(v / (1 + m), limit),
        "L1": lambda m: torch.minimum((v - m).clamp_min(0), limit),
    }[norm]
    size = {"L2": lambda u: u.square().sum().sqrt(), "L1": lambda u: u.sum()}[norm]
    if size(form(0.0)) <= eps:
        return form(0.0)
    low, high = 0.0, 1e9 if norm == "L2" else 10.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if size(form(middle)) > eps else (low, middle)
    return form(high)


@settings(max_examples=300, deadline=None)
@given(situations())
def test_projection_is_the_nearest_point(situation: tuple[str, float, Tensor, Tensor]) -> None:
    norm, eps, x, delta = situation
    threat = Threat(norm, eps)
    room = torch.where(delta > 0, 1 - x, x)
    for ours, limit in ((threat.project(delta), delta.abs()), (threat.clip(x, delta), room)):
        for i in range(2):
            size = nearest_by_bisection(norm, delta[i].abs().flatten(), eps, limit[i].flatten())
            expected = delta[i].sign() * size.view_as(delta[i])
            torch.testing.assert_close(ours[i], expected, rtol=0, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(situations())
def test_projection_is_inside_and_idempotent(situation: tuple[str, float, Tensor, Tensor]) -> None:
    norm, eps, x, delta = situation
    threat = Threat(norm, eps)
    once = threat.clip(x, delta)
    assert threat.contains(x, x + once, tol=1e-9).all()
    assert threat.contains(x, threat.apply(x, delta), tol=1e-9).all()
    torch.testing.assert_close(threat.clip(x, once), once, rtol=0, atol=1e-9)
    ball = threat.project(delta)
    assert (threat.geometry.norm(ball) <= eps + 1e-9).all()
    torch.testing.assert_close(threat.project(ball), ball, rtol=0, atol=1e-9)


def test_l1_projection_beats_every_point_of_a_grid() -> None:
    """Brute force in two dimensions: no grid point of the ball is nearer."""
    line = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    inside = grid[grid.abs().sum(1) <= 0.7]
    for target in torch.randn(50, 2, dtype=torch.float64):
        ours = Threat("L1", 0.7).project(target.view(1, 1, 1, 2)).flatten()
        assert (ours - target).norm() <= (inside - target).norm(dim=1).min() + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_float32_images_of_real_size(norm: str) -> None:
    x = torch.rand(4, 3, 64, 64)
    threat = Threat(norm, DEFAULT_EPS[norm])
    for scale in (1e-3, 1.0, 1e3):
        assert threat.contains(x, threat.apply(x, scale * torch.randn_like(x))).all()


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_uniform_in_the_ball(norm: str) -> None:
    """In d dimensions the share of a ball within radius r·eps is r^d: its norms have the mean d /
    (d + 1)."""
    geometry = GEOMETRIES[norm]
    d, samples = 4, 20_000
    norms = geometry.norm(geometry.random(torch.zeros(samples, 1, 2, 2), 0.5)) / 0.5
    assert norms.max() <= 1 + 1e-6
    assert norms.mean() == pytest.approx(d / (d + 1), abs=0.005)
    assert (norms <= 0.5).float().mean() == pytest.approx(0.5**d, abs=0.005)


@pytest.mark.parametrize("norm", NORMS)
def test_step_is_a_unit_ascent(norm: str) -> None:
    geometry = GEOMETRIES[norm]
    grad, x = torch.randn(4, 3, 8, 8), torch.full((4, 3, 8, 8), 0.5)
    for scale in (1.0, 1e-30):  # squares of the latter are zero in float32
        step = geometry.step(scale * grad, x)
        torch.testing.assert_close(geometry.norm(step), torch.ones(4), rtol=1e-5, atol=0)
        assert ((step * grad).flatten(1).sum(1) > 0).all()
    assert not geometry.step(torch.zeros_like(grad), x).any()


def test_l1_step_is_sparse_and_leaves_pixels_at_the_box() -> None:
    grad = torch.arange(1.0, 201.0).view(1, 1, 10, 20)
    x = torch.full_like(grad, 0.5)
    assert GEOMETRIES["L1"].step(grad, x).nonzero()[:, -1].tolist() == [
        18,
        19,
    ]  # the top 1 % of 200
    x[..., -1, 19] = 1.0
    moved = Threat("L1", 1.0).apply(x, GEOMETRIES["L1"].step(grad, x)) - x
    assert moved.nonzero()[:, -1].tolist() == [17, 18]


@pytest.mark.parametrize(("norm", "distance"), [("Linf", 0.2), ("L2", 0.2 * 2), ("L1", 0.2 * 4)])
def test_contains_and_distance(norm: str, distance: float) -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    assert Threat(norm, 1.0).distance(x, x + 0.2).item() == pytest.approx(distance)
    assert Threat(norm, distance).contains(x, x + 0.2).all()
    assert not Threat(norm, distance - 1e-4).contains(x, x + 0.2).any()
    assert not Threat(norm, 9.0).contains(x, x + 0.51).any()  # outside the box
    assert not Threat(norm, 9.0).contains(x, x * torch.nan).any()


@pytest.mark.parametrize(("norm", "step"), [("Linf", 2 / 255), ("L2", 15 / 255), ("L1", 400 / 255)])
def test_default_step_sizes(norm: str, step: float) -> None:
    assert Threat(norm, DEFAULT_EPS[norm]).default_step_size() == pytest.approx(step)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'Linf'"):
        Threat("linf", 0.1)
    for eps in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="finite number >= 0"):
            Threat("L2", eps)


def test_tables_and_threats_import_no_torch() -> None:
    code = (
        "import sys; from rpat_cli.attacks import ATTACKS; from rpat_cli.methods import METHODS, "
        "REGULARIZERS;"
        "from rpat_cli.attacks.threat import DEFAULT_EPS, GEOMETRIES;"
        "assert list(ATTACKS) and list(METHODS) and list(REGULARIZERS) and set(GEOMETRIES) == "
        "set(DEFAULT_EPS);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
