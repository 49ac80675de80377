"""The short way back into ball and box in Linf is the long one, to the bit."""

import pytest
import torch

from rpat_cli.attacks.geometry import LINF, summed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("eps", [0.0, 1e-4, 8 / 255, 0.5, 1.0])
def test_bounds_of_the_sum_are_bounds_of_the_perturbation(eps: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 1, 28, 28, dtype=dtype)
    x[:5], x[5:10] = 0, 1
    delta = (4 * torch.rand_like(x) - 2) * max(eps, 0.01)
    delta.view(-1)[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    long_way = summed(x, LINF.around(x, eps))(delta)
    assert torch.equal(LINF.back(x, eps)(delta).nan_to_num(7), long_way.nan_to_num(7))
