"""All mistakes of a command line are said at once, wherever they are found."""

from pathlib import Path

import pytest

from rpat_cli.cli.app import app
from rpat_cli.errors import ConfigError, Mistakes, Problem

MODEL = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(MODEL)


def refused(*arguments: str) -> list[str]:
    """Where the mistakes are, one for each."""
    with pytest.raises(ConfigError) as caught:
        app(list(arguments), prog_name="rpat", standalone_mode=False)
    assert caught.value.exit_code == 2
    return [problem.source or problem.key or problem.message for problem in caught.value.problems]


EVAL = ("eval", "--model-file", "m.py:build", "--data", "fashion-mini")
WRONG_IN_EVAL = {
    "--threat": "L3:1",
    "--attack": "wrong",
    "--steps": "0",
    "--step-size": "wide",
    "--restarts": "-1",
    "--batch-size": "1.5",
    "--jobs": "many",
    "--checkpoint": "newest",
    "--set": "epochs",
    "--seed": "abc",
    "--device": "gpu",
    "--surrogate": "a=b",
}


def test_of_an_evaluation() -> None:
    """Of them, the recipe's keys were only looked at once the model had been opened."""
    flags = [part for pair in WRONG_IN_EVAL.items() for part in pair]
    found = refused(*EVAL, *flags, "--limit", "-5", "--diagnostic", "nothing")
    assert set(WRONG_IN_EVAL) <= set(found)
    assert "limit" in found
    assert any("unknown diagnostic 'nothing'" in each for each in found)
    assert len(found) == len(WRONG_IN_EVAL) + 2


@pytest.mark.parametrize("flag", [flag for flag in WRONG_IN_EVAL if flag != "--attack"])
def test_each_with_a_wrong_attack(flag: str) -> None:
    found = refused(*EVAL, "--attack", "wrong", flag, WRONG_IN_EVAL[flag])
    assert sorted(found) == sorted(["--attack", flag])


def test_over_the_recipe_of_a_run(tmp_path: Path) -> None:
    """What its own recipe allows is no mistake."""
    run = tmp_path / "runs/a"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("method: {name: trades, beta: 6}\n")
    settings = ("--set", "method.beta=3", "--set", "method.gama=3")
    assert refused("eval", str(run), "-a", "wrong", *settings) == [
        "--attack",
        "--set method.gama=3",
    ]
    assert refused("eval", "-a", "wrong", *settings) == ["--attack", "--set method.gama=3"]


def test_of_a_training() -> None:
    wrong = {"--epochs": "abc", "--jobs": "0", "--set": "lr", "--stop-after": "0", "--gpus": "x"}
    flags = [part for pair in wrong.items() for part in pair]
    found = refused("train", *flags, "--no-ra", "--ra-weight", "2")
    assert sorted(found) == sorted([*wrong, "--ra-weight"])
    found = refused("train", "--jobs", "0", "--resume", "a", "--out", "b", "--dry-run")
    assert [each.split()[0] for each in found] == ["--jobs", "--out", "--dry-run"]


def test_of_all_files_that_cannot_be_read() -> None:
    """Then the rest is not judged: it may lie over what is in them."""
    flags = ("--recipe", "nothing", "--config", "no.yaml", "--config", "none.yaml", "--beta", "3")
    assert refused("train", *flags) == ["--recipe", "no.yaml", "none.yaml"]


def test_a_mistake_that_is_found_twice_is_said_once() -> None:
    mistakes = Mistakes()
    for _ in range(2):
        with mistakes.gathered():
            raise ConfigError(Problem("", "is wrong.", "--x"))
    with pytest.raises(ConfigError, match=r"^--x: is wrong\.$"):
        mistakes.check()
    Mistakes().check()
