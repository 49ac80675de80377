"""What a new user has after the first commands."""

import json
from pathlib import Path

import pytest
from documented import QUICK, rpat

from rpat_cli.data.base import Dataset
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.runs.build import build_data


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `pgd` and `rpat`. Tests must not change these."""
    home = tmp_path_factory.mktemp("home")
    for name, more in (("pgd", ["--track", "tensorboard"]), ("rpat", ["--ra"])):
        rpat(home, "train", "--method", "pgd", "--wa", *more, *QUICK, "--out", f"runs/{name}")
    return home


@pytest.fixture
def recorded(home: Path) -> list[int]:
    """The classes of all test images, by the evaluation with which the training of `pgd` ended, at
    its best epoch."""
    (file,) = (home / "runs" / "pgd").glob("evals/best_Linf*.json")
    classes: list[int] = json.loads(file.read_text())["clean_predicted"]
    assert len(classes) == 500
    return classes


@pytest.fixture(scope="session")
def data() -> Dataset:
    """fashion-mini."""
    return build_data(DataSection(), 0, test_only=True)
