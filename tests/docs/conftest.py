"""The scripts in docs/experiments, which are no package."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "docs" / "experiments"


@pytest.fixture(scope="session")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """By name."""
    names = [file.stem for file in sorted(SCRIPTS.glob("*.py"))]
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in names:
            sys.modules.pop(name, None)
