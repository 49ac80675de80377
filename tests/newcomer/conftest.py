"""What a new user has after the first commands."""

from pathlib import Path

import pytest
from documented import QUICK, rpat


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `pgd` and `rpat`. Tests must not change these."""
    home = tmp_path_factory.mktemp("home")
    for name, more in (("pgd", ["--track", "tensorboard"]), ("rpat", ["--ra"])):
        rpat(home, "train", "--method", "pgd", "--wa", *more, *QUICK, "--out", f"runs/{name}")
    return home
