"""The shape of the house: imports run one way, what we import is declared, and nothing private slips into the repo."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rpat_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom, by the folder (or the module at the top) that a module lies in. What is not listed may not.
FOUNDATIONS = {"errors", "numbers", "registry", "passes"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "numbers": set(),
    "passes": set(),
    "registry": {"errors"},
    "attacks": FOUNDATIONS,
    "data": FOUNDATIONS,
    "models": FOUNDATIONS,
    "methods": FOUNDATIONS | {"attacks"},
    "engine": FOUNDATIONS | {"attacks", "data", "methods"},  # of these, protocols only: see below
    "evaluation": FOUNDATIONS | {"attacks", "data"},
}
NOBODY_BELOW_IMPORTS = {"cli"}

# The engine may know what a method, an attack and a split of data are, but never one of them by name.
ENGINE_SEES = {"attacks.base", "methods.base", "data.base"}

IMPORT_TO_DISTRIBUTION = {"yaml": "pyyaml", "PIL": "pillow"}
OPTIONAL = {"autoattack"}  # accepted in place of pyautoattack where it is installed


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in it, in full: `rpat_cli.data.base`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


def own(path: Path) -> list[str]:
    return [name.removeprefix("rpat_cli.") for name in imports(path) if name.startswith("rpat_cli.")]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = room(path)
    rooms = {name.split(".")[0] for name in own(path)} - {here}
    if here in ALLOWED:
        assert rooms <= ALLOWED[here], f"{here} may not import {rooms - ALLOWED[here]}"
    if here not in ("cli", "__main__"):
        assert not rooms & NOBODY_BELOW_IMPORTS
    if here == "engine":
        seen = {name for name in own(path) if name.split(".")[0] in ("attacks", "methods", "data")}
        assert seen <= ENGINE_SEES, f"the engine knows {seen - ENGINE_SEES} by name"


def test_the_engine_never_asks_for_a_method_by_name() -> None:
    from rpat_cli.methods import METHODS

    for path in (PACKAGE / "engine").glob("*.py"):
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & set(METHODS), path


def declared() -> tuple[set[str], set[str]]:
    """The distributions that pyproject asks for: of every user, and of users of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [spec for specs in project["optional-dependencies"].values() for spec in specs]
    return {_name(spec) for spec in project["dependencies"]}, {_name(spec) for spec in extras}


def _name(spec: str) -> str:
    return re.split(r"[<>=!~\[ ;]", spec)[0].lower()


def third_party() -> set[str]:
    roots = {name.split(".")[0] for path in MODULES for name in imports(path)}
    own_or_standard = {"rpat_cli", *sys.stdlib_module_names}
    return {IMPORT_TO_DISTRIBUTION.get(root, root) for root in roots - own_or_standard - OPTIONAL}


def test_what_is_imported_is_declared() -> None:
    core, extras = declared()
    assert third_party() <= core | extras


def test_the_conda_file_is_in_step_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "RPAT.yaml").read_text())["dependencies"]
    [pip] = [item["pip"] for item in conda if isinstance(item, dict)]
    assert set(project["dependencies"]) <= set(pip)
    assert any(str(item).startswith(f"python{project['requires-python']},") for item in conda)
    assert "-e .[dev]" in pip


def test_no_version_is_pinned_in_either_file() -> None:
    for name in ("pyproject.toml", "RPAT.yaml"):
        assert "==" not in (ROOT / name).read_text()


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
