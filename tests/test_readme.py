"""What README and docs/ say is true: commands, recipes, sweeps, suites, Python, links, the error
message, the title of the paper."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import assert_same, load_recipe, snapshot, tiny_net
from torch import Tensor

from rpat_cli.attacks import ATTACKS, TRAINING_ATTACKS
from rpat_cli.attacks.threat import DEFAULT_EPS, Threat
from rpat_cli.diagnostics import DIAGNOSTICS, Subject
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.plugins import load_plugins

Batch = tuple[Tensor, Tensor]

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def all_blocks(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language), start=1)
    ]


# ---- the first lines


def test_the_first_block_installs_runs_and_tests_in_two_lines() -> None:
    first, second = blocks(README, "sh")[0].splitlines()
    assert "rpat train --method consistency --ra --eval clean,pgd-20,autoattack" in first
    assert "pip install -e '.[dev]'" in second
    assert "-m pytest" in second


def test_ci_finds_the_line_that_tests() -> None:
    """As .ci/run looks for it: from the marker to the end of the block."""
    assert "'/^<!-- ci: tests/,/^```$/p' README.md" in (ROOT / ".ci" / "run").read_text()
    command = ["sed", "-n", "/^<!-- ci: tests/,/^```$/p", str(README)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line for line in found.splitlines() if "-m pytest" in line] == [
        blocks(README, "sh")[0].splitlines()[1]
    ]


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


# ---- commands


def commands() -> list[Any]:
    """Every call of rpat in a block of shell commands, as words."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                call = re.search(r"(?:^|/| -m )rpat(?:_cli)? (\w.*)", line)
                if call:
                    words = shlex.split(call[1], comments=True)
                    found.append(pytest.param(words, id=f"{page.stem}: {' '.join(words)}"))
    return found


@pytest.mark.parametrize("words", commands())
def test_its_commands_have_these_flags(words: list[str]) -> None:
    from rpat_cli.cli.app import whole

    command: Any = whole()
    while words and words[0] in getattr(command, "commands", ()):
        command, words = command.commands[words[0]], words[1:]
    assert command.name != "rpat", words
    flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= flags


def test_its_error_message_is_the_real_one() -> None:
    [example] = [block for block in blocks(README, "text") if "mistakes in the recipe" in block]
    command, *message = example.splitlines()
    words = shlex.split(command.removeprefix("$ rpat train"))
    flags: dict[str, Any] = {
        "--norm": (("threat", "norm"), "L3"),
        "--method": (("method", "name"), "tradse"),
    }
    assert all(flag in words for flag in flags)
    with pytest.raises(ConfigError) as error:
        load_recipe([], ["optimizer.lrr=1"], flags)
    shortened = [line.split(" Allowed: ")[0] for line in f"error: {error.value}".splitlines()]
    assert shortened == [line.removesuffix(" …") for line in message]


# ---- files that a reader may copy


def kind(text: str) -> str:
    """What a block of YAML is part of."""
    if isinstance(yaml.safe_load(text), list):
        return "suite"
    if "uses: actions/" in text:
        return "workflow"
    return "sweep" if re.search("^(seeds|search|engine)", text, flags=re.MULTILINE) else "recipe"


def of_kind(wanted: str) -> list[Any]:
    return [param for param in all_blocks("yaml") if kind(param.values[0]) == wanted]


@pytest.mark.parametrize("text", of_kind("recipe"))
def test_its_recipes_resolve(text: str) -> None:
    recipe = resolve([Layer("docs", yaml.safe_load(text))])
    if "trades" in text:
        assert recipe.method.name == "trades"
        assert recipe.attack.step_size == pytest.approx(2 / 255)


@pytest.mark.parametrize("text", of_kind("sweep"))
def test_its_sweep_files_are_read(text: str, tmp_path: Path) -> None:
    from rpat_cli.sweep.sweep_file import read_sweep

    whole = "grid: {ra: [false, true]}\nrecipe: {data: fashion-mini, epochs: 10}\nseeds: 3\n"
    path = tmp_path / "sweep.yaml"
    path.write_text(text if "seeds" in text else whole + text)
    spec, _ = read_sweep(path)
    if not spec.rows:  # rows extend recipes that name their data
        assert spec.recipe["data"] == "fashion-mini"
    if "search" in text:
        assert spec.search is not None
    if "slurm" in text:
        assert spec.engine.name == "slurm"


def test_its_sweep_expands(tmp_path: Path) -> None:
    from rpat_cli.sweep.expand import plan_sweep

    path = tmp_path / "sweep.yaml"
    path.write_text(blocks(ROOT / "docs" / "sweeps.md", "yaml")[0])
    assert len(plan_sweep(path).trials) == 2 * 2 * 3


@pytest.mark.parametrize("text", of_kind("suite"))
def test_its_suites_are_read(text: str, tmp_path: Path) -> None:
    from rpat_cli.recipe.suite_file import read_suite

    path = tmp_path / "my-suite.yaml"
    path.write_text(text)
    assert [spec.label for spec in read_suite(f"clean,{path}")] == ["clean", "apgd-t", "pgd-50x10"]


@pytest.mark.parametrize("text", all_blocks("python"))
def test_its_python_compiles(text: str) -> None:
    compile(text, "docs", "exec")


def test_its_plugin_is_the_tested_one() -> None:
    tested = (Path(__file__).parent / "recipe" / "test_plugins.py").read_text()
    [example] = [
        block for block in blocks(ROOT / "docs" / "methods.md", "python") if "METHODS.add" in block
    ]
    assert example.strip() in tested


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Loads the example of CONTRIBUTING that holds these words as a plugin, for one test."""
    for table in (REGULARIZERS, ATTACKS, DIAGNOSTICS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))

    def load(words: str) -> None:
        page = ROOT / ".github" / "CONTRIBUTING.md"
        [text] = [block for block in blocks(page, "python") if words in block]
        path = tmp_path / "example.py"
        path.write_text(text)
        load_plugins([(str(path), "--plugin")])

    return load


def test_the_regularizer_of_contributing(example: Callable[[str], None], batch: Batch) -> None:
    example("REGULARIZERS.add")
    method = compose(METHODS["pgd"](), REGULARIZERS["squeeze"](weight=2.0))
    step = StepContext(tiny_net(), ATTACKS["pgd"](Threat("Linf", 0.1), steps=1), *batch)
    outcome = method(step)
    expected = 2 * outcome.logits_adv.detach().square().mean()
    assert outcome.terms["squeeze"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("norm", DEFAULT_EPS)
def test_the_attack_of_contributing(
    example: Callable[[str], None], batch: Batch, norm: str
) -> None:
    example("ATTACKS.add")
    threat, model = Threat(norm, DEFAULT_EPS[norm]), tiny_net()
    before = snapshot(model)
    x_adv = ATTACKS["rs-fgsm"](threat)(model, *batch)
    assert_same(before, snapshot(model))
    assert threat.contains(batch[0], x_adv).all()
    assert "rs-fgsm" in TRAINING_ATTACKS
    assert parse_suite("rs-fgsm,transfer:runs/a@rs-fgsm")


def test_the_diagnostic_of_contributing(example: Callable[[str], None], batch: Batch) -> None:
    example("DIAGNOSTICS.add")
    row = DIAGNOSTICS["steepness"]
    model = tiny_net().float().eval()
    device = torch.device("cpu")
    subject = Subject(model, batch[0].float(), batch[1], Threat("Linf", 0.1), device, seed=0)
    result = row.prepared(None, None)(subject)
    assert row.result(json.loads(json.dumps(result.to_dict()))) == result
    assert result.section().n == len(batch[0])


# ---- links, names, the title


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]+`", "", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if "://" not in target:
            name, _, anchor = target.partition("#")
            other = page.parent / name if name else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_it_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:rpat_cli|tests|docs)/[\w/.]+)`", page.read_text(encoding="utf-8"))
    for name in named:
        assert (ROOT / name).exists() or re.search(r"/[A-Z]+\b", name), name  # models/NAME.py


def test_the_paper_is_cited_by_its_title() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    [bibtex] = blocks(README, "bibtex")
    assert [person["family-names"] for person in paper["authors"]] == ["Wang", "Liu"]
    for text in (bibtex, (ROOT / "docs" / "published-code.md").read_text()):
        assert paper["title"] in " ".join(text.split())
