"""FAB's projection in half the time: the library's numbers, and what the formula says."""

import pytest
import torch
from pyautoattack.fab_projections import projection_linf
from torch import Tensor

from rpat_cli.attacks.fab_projection import onto_hyperplane


def problem(rows: int, pixels: int, reach: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images with many equal pixels and many at the ends of the box, weights of which some are 0,
    and hyperplanes of which with a larger `reach` more lie outside of the box."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(rows, pixels, generator=generator) * 12 - 2).round().div(8).clamp(0, 1)
    w = torch.randn(rows, pixels, generator=generator)
    w[torch.rand(rows, pixels, generator=generator) < 0.2] = 0
    inside = torch.rand(rows, pixels, generator=generator)
    return x, w, reach * (w * inside).sum(1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reach", [0.2, 1.0, 3.0, 30.0])
@pytest.mark.parametrize(("rows", "pixels"), [(64, 784), (300, 12), (50, 2)])
def test_it_gives_the_librarys_numbers(rows: int, pixels: int, reach: float, seed: int) -> None:
    x, w, b = problem(rows, pixels, reach, seed)
    before = [part.clone() for part in (x, w, b)]
    torch.testing.assert_close(
        onto_hyperplane(x, w, b), projection_linf(x, w, b), rtol=0, atol=0, equal_nan=True
    )
    assert all(map(torch.equal, (x, w, b), before))


def test_it_is_the_smallest_step_onto_the_hyperplane() -> None:
    # Both pixels move by 0.1, then the second one is at its end, and the first goes on alone.
    x, w = torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 1.0]])
    for sum_after, delta in ((0.8, [-0.1, -0.1]), (0.5, [-0.4, -0.1]), (-1.0, [-0.9, -0.1])):
        step = onto_hyperplane(x, w, torch.tensor([sum_after]))
        torch.testing.assert_close(step, torch.tensor([delta]))


def test_an_evaluation_leaves_the_librarys_function_in_its_place(toy: object) -> None:
    from pyautoattack import fab_base

    from rpat_cli.attacks.autoattack import AutoAttack
    from rpat_cli.attacks.threat import Threat

    before, seen = fab_base.projection_linf, []

    def spy(*arguments: Tensor) -> Tensor:
        seen.append(fab_base.projection_linf)
        return projection_linf(*arguments)

    ensemble = AutoAttack(Threat("Linf", 0.1), attacks=("fab-t",)).on(toy.model, toy.x, toy.y)
    ensemble._attacks.fab.n_iter = 1
    fab_base.projection_linf = spy
    try:
        ensemble.perturb("fab-t", toy.x[:4], toy.y[:4])
        assert fab_base.projection_linf is spy
        assert not seen  # ours ran
    finally:
        fab_base.projection_linf = before
