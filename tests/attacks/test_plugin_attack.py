"""An attack from a user's own file, added with `ATTACKS.add` alone, does all that ours do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS, TRAINING_ATTACKS
from rpat_cli.attacks.row import AttackRow
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.forecast import loads_of
from rpat_cli.evaluation.suite import Overrides, list_attacks, parse_suite

PLUGIN = '''
"""Random signs: the best of some corners of the ball."""

from dataclasses import dataclass

import torch

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat


@dataclass(frozen=True)
class Corners:
    """The worst of some random corners of the ball"""

    threat: Threat
    steps: int = 5

    def __call__(self, model, x, y):
        return self.perturb(model, x, lambda logits: torch.nn.functional.cross_entropy(
            logits, y, reduction="none"))

    @torch.no_grad()
    def perturb(self, model, x, loss_fn, *, start=None):
        best, highest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(self.steps):
            signs = torch.randint_like(x, 2) * 2 - 1
            x_adv = self.threat.apply(x, self.threat.eps * signs)
            losses = loss_fn(model(x_adv)).expand(len(x))
            better = losses > highest
            best[better], highest[better] = x_adv[better], losses[better]
        return best


ATTACKS.add("corners", Corners)
'''

TRAIN = ("--epochs", "1", "--set", "validation.steps=1", "--set", "validation.limit=20")


@pytest.fixture
def _table_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds is gone after it."""
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))


def rpat(folder: Path, *arguments: str) -> str:
    """Standard output of the real command."""
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "continuing in this one alone" not in done.stderr  # the workers found the plugin's class
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the plugin, and a run trained and evaluated with its attack."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "mine.py").write_text(PLUGIN)
    attack = ("--plugin", "mine.py", "--attack", "corners", "--eval", "clean,corners-2")
    rpat(folder, "train", "--model", "small-cnn", *attack, *TRAIN, "--out", "run")
    return folder


def results(folder: Path, suite: str, *options: str) -> dict[str, dict[str, object]]:
    """The results of `rpat eval run`, by label."""
    common = ("--plugin", "mine.py", "--limit", "60", "--batch-size", "20")
    rpat(folder, "eval", "run", "--attack", suite, *common, *options)
    files = (folder / "run" / "evals").glob("*.json")
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    return {result["label"]: result for result in json.loads(newest.read_text())["results"]}


def test_it_trains_and_ends_in_the_report(folder: Path) -> None:
    recipe = (folder / "run" / "recipe.yaml").read_text()
    assert "name: corners" in recipe
    assert "corners-2" in (folder / "run" / "report.json").read_text()


def test_it_is_evaluated_in_one_process_or_shared_over_two(folder: Path) -> None:
    alone = results(folder, "corners,corners-20", "--jobs", "1")
    assert list(alone) == ["corners-5", "corners-20"]
    assert alone["corners-20"]["settings"] == {"steps": 20}
    shared = results(folder, "corners,corners-20", "--jobs", "2")
    for label, result in alone.items():
        assert shared[label]["correct_after"] == result["correct_after"]


def test_it_makes_images_on_another_model(folder: Path) -> None:
    (result,) = results(folder, "transfer:run@corners-3").values()
    assert result["settings"] == {"source": str(folder / "run"), "attack": "corners", "steps": 3}


def test_it_is_listed(folder: Path) -> None:
    listed = " ".join(rpat(folder, "eval", "--plugin", "mine.py", "--attack", "list").split())
    assert "corners The worst of some random corners of the ball" in listed


class Still:
    """Does nothing, and is no dataclass."""

    def __init__(self, threat: Threat, *, queries: int = 50, width: float = 0.5) -> None:
        self.threat, self.queries, self.width = threat, queries, width

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x


@pytest.mark.usefixtures("_table_as_before")
def test_a_bare_factory_is_read_from_its_signature() -> None:
    ATTACKS.add("still", Still)
    row = ATTACKS["still"]
    assert (row.name, row.takes, row.counts) == ("still", ("queries", "width"), "queries")
    assert row.description == "Does nothing, and is no dataclass"
    assert list_attacks()["still"] == row.description
    assert "still" in TRAINING_ATTACKS
    (spec,) = parse_suite("still-70")
    assert [load.passes for load in loads_of(spec, ["still"], spec.settings)] == [70]
    (spec,) = parse_suite([{"attack": "still", "width": "1/4"}])
    assert (spec.label, dict(spec.settings)) == ("still-50", {"queries": 50, "width": 0.25})
    with pytest.raises(ConfigError, match="no attack in 'still' takes it"):
        parse_suite("still", Overrides(steps=3))
    with pytest.raises(ConfigError, match="unknown setting of still 'widht'. Did you mean 'width'"):
        row(Threat("Linf", 0.1), widht=1)
    built = row.for_training(Threat("Linf", 0.1), {"start": "zero", "steps": 7, "restarts": 1})
    assert built.queries == 50


@pytest.mark.usefixtures("_table_as_before")
def test_a_row_says_what_a_signature_cannot() -> None:
    ATTACKS.add("linf-only", AttackRow(Still, "one line", norms=("Linf",), follows_gradient=True))
    assert "linf-only" not in TRAINING_ATTACKS
    with pytest.raises(ConfigError, match="linf-only: is defined in Linf, not in L2"):
        ATTACKS["linf-only"](Threat("L2", 0.1))
    with pytest.raises(ConfigError, match="cannot transfer"):
        parse_suite("transfer:runs/a@linf-only")


@pytest.mark.usefixtures("_table_as_before")
def test_a_factory_that_needs_more_than_it_is_given_says_so() -> None:
    def needs_width(threat: Threat, width: float) -> Still:
        return Still(threat, width=width)

    ATTACKS.add("needs-width", needs_width)
    with pytest.raises(ConfigError, match="missing a required argument: 'width'"):
        ATTACKS["needs-width"](Threat("Linf", 0.1))


def test_a_plugin_that_adds_no_attack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from rpat_cli.attacks import ATTACKS\nATTACKS.add('x', 3)\n")
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", "eval", "--plugin", "bad.py", "--attack", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the plugin failed" in done.stderr
