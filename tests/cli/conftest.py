"""Fixtures around the real command."""

from pathlib import Path

import pytest
from cli_calls import QUICK, Answer, Rpat, call


@pytest.fixture
def rpat(tmp_path: Path) -> Rpat:
    """Call rpat in an empty folder."""
    return lambda *arguments: call(*arguments, cwd=tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A finished run, made once, in `FOLDER/run`, and what the command said. Tests must not change
    it."""
    folder = tmp_path_factory.mktemp("trained")
    return folder / "run", call(
        "train", "--method", "consistency", "--ra", *QUICK, "--out", "run", cwd=folder
    )
