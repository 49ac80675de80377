"""What the README says is true: its first lines, its recipe, its example method, its error
message."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import load_recipe

from rpat_cli.errors import ConfigError
from rpat_cli.recipe.layers import Layer, resolve

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_it_opens_with_two_lines_that_install_run_and_test() -> None:
    assert README.startswith("```sh\n")
    first, second = blocks("sh")[0].splitlines()
    assert "rpat train --method consistency --ra --eval clean,pgd-20,autoattack" in first
    assert "pip install -e '.[dev]'" in second
    assert "-m pytest" in second


def test_its_recipe_resolves() -> None:
    text = next(block for block in blocks("yaml") if "threat" in block)
    recipe = resolve([Layer("README", yaml.safe_load(text))])
    assert recipe.method.name == "trades"
    assert recipe.ra["weight"] == 1.0
    assert recipe.attack.step_size == pytest.approx(2 / 255)


def test_its_error_message_is_the_real_one() -> None:
    [example] = [block for block in blocks("text") if "mistakes in the recipe" in block]
    command, *told = example.splitlines()
    words = shlex.split(command.removeprefix("$ rpat train"))
    flags: dict[str, Any] = {
        "--norm": (("threat", "norm"), "L3"),
        "--method": (("method", "name"), "tradse"),
    }
    assert all(flag in words for flag in flags)
    with pytest.raises(ConfigError) as error:
        load_recipe([], ["optimizer.lrr=1"], flags)
    shortened = [line.split(" Allowed: lr, ")[0] for line in f"error: {error.value}".splitlines()]
    assert shortened == [line.removesuffix(" …") for line in told]


def test_its_links_to_files_exist() -> None:
    root = Path(__file__).parent.parent
    for name in re.findall(r"`(rpat_cli/[\w/.]+)`", README):
        assert (root / name).exists(), name


def test_its_sweep_expands(tmp_path: Path) -> None:
    from rpat_cli.sweep.expand import plan_sweep

    path = tmp_path / "sweep.yaml"
    path.write_text(next(block for block in blocks("yaml") if "seeds" in block))
    assert len(plan_sweep(path).trials) == 2 * 2 * 3


def test_what_else_it_says_of_sweep_files_is_read(tmp_path: Path) -> None:
    from rpat_cli.sweep.sweep_file import read_sweep

    whole, *others = [
        block for block in blocks("yaml") if re.search("seeds|^search|^engine", block)
    ]
    path = tmp_path / "sweep.yaml"
    for block in others:
        path.write_text(block if "seeds" in block else whole + block)
        spec, _ = read_sweep(path)
        assert spec.search is not None or spec.engine.name == "slurm"
    assert len(others) == 3


def test_its_suite_is_read(tmp_path: Path) -> None:
    from rpat_cli.recipe.suite_file import read_suite

    path = tmp_path / "my-suite.yaml"
    path.write_text(next(block for block in blocks("yaml") if "- apgd-t" in block))
    assert [spec.label for spec in read_suite(f"clean,{path}")] == ["clean", "apgd-t", "pgd-50x10"]


def test_its_plugin_is_the_tested_one() -> None:
    tested = (Path(__file__).parent / "recipe" / "test_plugins.py").read_text()
    [example] = blocks("python")[1:]
    assert example.strip() in tested
