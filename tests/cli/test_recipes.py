"""`rpat recipes`, `rpat train --recipe`, `--dry-run`, `--plugin`, and `rpat eval` of a published
file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_calls import QUICK, Rpat, call

import rpat_cli as rpat_package
from rpat_cli.errors import ConfigError
from rpat_cli.models import MODELS
from rpat_cli.recipe.shipped import find, recipe_names

PLUGIN = """
from rpat_cli.methods import METHODS
from rpat_cli.methods.pgd import Pgd


class Twin(Pgd):
    pass


METHODS.add("twin", Twin)
"""


def test_the_list_names_every_recipe_with_what_it_is(rpat: Rpat) -> None:
    answer = rpat("recipes", "--json")
    assert answer.code == 0, answer.err
    listed = json.loads(answer.out)
    assert list(listed) == recipe_names()
    assert listed["quickstart"].startswith("A first run in minutes")
    shown = rpat("recipes")
    assert "quickstart" in shown.out
    assert "rpat recipes show NAME" in shown.err


def test_show_prints_the_file_as_it_is(rpat: Rpat) -> None:
    answer = rpat("recipes", "show", "base/sotas")
    assert answer.out == find("base/sotas").read_text()
    wrong = rpat("recipes", "show", "quickstrat")
    assert wrong.code == 2
    assert "Did you mean 'quickstart'?" in wrong.message


def test_listing_recipes_imports_no_torch() -> None:
    code = (
        "import sys; from rpat_cli.cli.app import app\n"
        "app(['recipes', '--json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch is imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_tells_the_cost_and_writes_nothing(rpat: Rpat, tmp_path: Path) -> None:
    answer = rpat("train", "--recipe", "fashion-mini/pgd", "--steps", "1", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    printed = json.loads(answer.out)
    assert printed["recipe"]["method"] == {"name": "pgd"}
    assert (printed["estimate"]["forward"], printed["estimate"]["backward"]) == (2, 2)
    assert printed["estimate"]["run_dir"].startswith("runs/")
    assert not list(tmp_path.iterdir())


def test_a_plugins_method_trains_and_its_run_loads_it_again(rpat: Rpat, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    trained = rpat(
        "train",
        "--plugin",
        "mine.py",
        "--method",
        "twin",
        *QUICK,
        "--stop-after",
        "1",
        "--out",
        "run",
    )
    assert trained.code == 0, trained.err
    assert "- plugins/mine.py#sha256=" in (tmp_path / "run" / "recipe.yaml").read_text()
    command = ("eval", "run", "--checkpoint", "last", "--attack", "clean", "--quiet")
    refused = rpat(*command)
    assert refused.code == 2
    assert "wants to run the Python file" in refused.message
    evaluated = rpat(*command, "--trust")
    assert evaluated.code == 0, evaluated.err


def test_a_published_file_is_evaluated(tmp_path: Path) -> None:
    net = MODELS["small-cnn"](1, 28, 10)
    torch.save(
        {"model_state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}},
        tmp_path / "wa.pth",
    )
    answer = call(
        "eval", "wa.pth", "--data", "fashion-mini", "--attack", "clean", "--json", cwd=tmp_path
    )
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["model"]["name"] == "small-cnn"


def test_python_has_recipes_and_published_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("extends: fashion-mini/pgd\nattack: {steps: 1}\n")
    run = rpat_package.train(
        "mine.yaml", epochs=1, eval=["clean"], validation={"steps": 1}, out="run"
    )
    assert run.report.exists()
    with pytest.raises(ConfigError, match="records which network"):
        rpat_package.load_model(run.checkpoint("last"), model="vgg16")
    net = MODELS["small-cnn"](1, 28, 10)
    torch.save(net.state_dict(), "last.model")
    assert (
        rpat_package.load_model("last.model", data="fashion-mini").architecture.name == "small-cnn"
    )
