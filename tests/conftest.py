"""Fixtures for all tests: one seed, one thread, small data."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_net
from torch import Tensor, nn
from toys import honest, small_budgets, toy  # noqa: F401  (fixtures of many tests)

# `import rpat` is a folder inside rpat_cli, which only an installation maps: the tests are of the
# checkout that they are in, whatever is installed.
sys.path.insert(0, str(Path(__file__).parent.parent / "rpat_cli" / "api"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors: threads only get in each other's way. And how many there are decides how sums
    are rounded: what fixtures of a session or module train must not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _interruptible() -> None:
    """A shell that starts the tests in the background makes them ignore Ctrl-C, which some of them
    send to themselves."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def net() -> nn.Module:
    """A freshly initialized tiny network, 3 channels, 10 classes, float32, in train mode."""
    return tiny_net()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Eight random 8 × 8 RGB images and their labels, with some pixels at 0 and at 1."""
    x = torch.rand(8, 3, 8, 8).mul(1.2).sub(0.1).clamp(0, 1)
    return x, torch.randint(0, 10, (8,))
