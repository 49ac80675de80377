"""The documentation site: everything that one can type is on a page, it builds without a warning,
and its notebooks run."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "docs" / "site"


@cache
def reference() -> Any:
    sys.path.insert(0, str(SITE))
    try:
        import reference as module
    finally:
        sys.path.remove(str(SITE))
    return module


@cache
def page(name: str) -> str:
    text: str = reference().pages()[f"reference/{name}.md"]
    return text


def test_every_command_and_option_is_on_a_page() -> None:
    from rpat_cli.cli.app import whole

    sections = dict(
        re.findall(r"^## (rpat[^\n]*)\n(.*?)(?=^## |\Z)", page("commands"), re.M | re.S)
    )
    todo: list[tuple[str, Any]] = [("rpat", whole())]
    while todo:
        path, command = todo.pop()
        flags = [flag for option in command.params for flag in option.opts if flag[0] == "-"]
        assert [flag for flag in flags if f"`{flag}`" not in sections[path]] == []
        todo += [
            (f"{path} {name}", inner) for name, inner in getattr(command, "commands", {}).items()
        ]
    assert {"rpat train", "rpat runs rm", "rpat recipes show"} <= set(sections)


def test_every_key_of_a_recipe_is_on_a_page() -> None:
    """Those of a resolved recipe with all its switches on, and the settings of every method."""
    from dataclasses import fields

    from rpat_cli.methods import METHODS
    from rpat_cli.recipe.layers import Layer, resolve

    on = {"ra": True, "consistency": True, "wa": True, "mix": "cutmix"}
    recipes = [resolve([Layer("test", on | {"ra": True, each: True})]) for each in ("awp", "sam")]
    keys = {key for recipe in recipes for key in leaves(recipe.model_dump())}
    keys |= {f"method.{field.name}" for name in METHODS for field in fields(METHODS[name])}
    named = set(re.findall(r"^\| `([\w.]+)`", page("recipe"), flags=re.M))
    assert len(keys) > 80
    hidden = {"method.name", "mix.name", "schedule.name"}  # `method: trades`
    assert {key for key in keys - hidden if not {key, key.rpartition(".")[0]} & named} == set()


def leaves(section: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for key, value in section.items():
        inner = isinstance(value, dict) and value
        found += leaves(value, f"{before}{key}.") if inner else [f"{before}{key}"]
    return found


def test_every_key_and_every_setting_is_described() -> None:
    """The last cell of every line says what it is."""
    from rpat_cli.attacks import ATTACKS
    from rpat_cli.attacks.row import SETTINGS

    lines = [line for text in reference().pages().values() for line in text.splitlines()]
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) > 500
    assert [row for row in rows if row.endswith("|  |")] == []
    assert {setting for row in ATTACKS.values() for setting in row.takes} == set(SETTINGS)


def test_every_key_of_a_sweep_is_on_a_page() -> None:
    named = set(re.findall(r"^\| `([\w.]+)`", page("sweep"), flags=re.M))
    file = ROOT / "tests" / "reliability" / "every_key_of_a_sweep.yaml"
    sweep = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {*sweep, "search.asha.factor", "search.optuna.axes.KEY.log", "engine.partition"} <= named


def test_every_row_of_a_table_is_on_a_page() -> None:
    from rpat_cli.attacks import ATTACKS
    from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
    from rpat_cli.diagnostics import DIAGNOSTICS
    from rpat_cli.engine.schedules import SCHEDULES
    from rpat_cli.methods import METHODS, REGULARIZERS
    from rpat_cli.models import MODELS
    from rpat_cli.recipe.shipped import recipe_names

    tables = (AUGMENTATIONS, DATASETS, MIXINGS, DIAGNOSTICS, SCHEDULES, METHODS, REGULARIZERS)
    names = [name for table in tables for name in table] + MODELS.forms()
    assert [name for name in names if f"`{name}`" not in page("names")] == []
    words = [row.form or name for name, row in ATTACKS.items()]
    assert [word for word in words if f"`{word}`" not in page("attacks")] == []
    assert [name for name in recipe_names() if f"`{name}`" not in page("recipes")] == []


def test_every_check_is_on_both_pages() -> None:
    from rpat_cli.diagnostics.verdict.checks import CHECKS

    by_hand = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"| {check.name} |" in page("checks")
        assert f"| {check.name} |" in by_hand


def test_every_public_name_is_on_a_page() -> None:
    import rpat

    modules = ["attacks", "datasets", "losses", "methods", "models"]
    names = [f"rpat.{name}" for name in rpat.__all__]
    names += [f"rpat.{m}.{name}" for m in modules for name in getattr(rpat, m).__all__]
    assert [name for name in names if f"### {name} {{" not in page("api")] == []


@pytest.mark.slow
def test_it_builds_without_a_warning_and_asks_for_nothing_from_the_net(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "rpat_cli" / "api")])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html")]
    fetched = r'<(?:script|img|iframe)[^>]+src="?https?:|<link[^>]+stylesheet[^>]+href="?https?:'
    assert len(pages) > 30
    assert [found for text in pages for found in re.findall(fetched, text)] == []
    api = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    assert "Train a robust classifier, as" in api  # the docstring of rpat.train


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_and_trust", "evaluate_your_model"])
def test_the_notebooks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without
    paths = [str(ROOT), str(ROOT / "rpat_cli" / "api")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
