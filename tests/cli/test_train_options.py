"""The options of `rpat train`: a table over the recipe's keys, and what plugins add."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from cli_calls import QUICK, Rpat

from rpat_cli.cli.options import RecipeOption, check_flags, given_flags
from rpat_cli.cli.train import train
from rpat_cli.cli.train_options import OPTIONS
from rpat_cli.errors import ConfigError
from rpat_cli.methods import REGULARIZERS
from rpat_cli.recipe.schema import added_regularizers

PLUGIN = """
from dataclasses import dataclass

from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.pgd import Pgd


@dataclass(frozen=True)
class LogitSqueezing(Needs):
    weight: float = 0.5

    def __call__(self, step, outcome):
        return {"squeeze": self.weight * outcome.logits_adv.square().mean()}


REGULARIZERS.add("squeeze", LogitSqueezing)
METHODS.add("mine", Pgd)
"""


def test_no_two_options_share_a_flag_or_a_parameter() -> None:
    flags = [flag for option in OPTIONS for flag in (option.long, option.short) if flag]
    assert len(set(flags)) == len(flags)
    parameters = inspect.signature(train).parameters
    assert {option.parameter for option in OPTIONS} < set(parameters)
    assert len(parameters) == len(OPTIONS) + 16


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.long)
def test_every_option_explains_itself_in_one_sentence(option: object) -> None:
    assert re.fullmatch(r"[A-Z.].{5,}\.", option.text)  # type: ignore[attr-defined]


def test_only_given_options_set_a_key() -> None:
    values = {option.parameter: None for option in OPTIONS}
    assert given_flags(OPTIONS, values) == {}
    assert given_flags(OPTIONS, {**values, "beta": "3", "wa": False}) == {
        "--beta": (("method", "beta"), "3"),
        "--wa": (("wa",), False),
    }


def test_what_is_turned_off_cannot_be_set_up() -> None:
    with pytest.raises(ConfigError) as error:
        check_flags(
            OPTIONS, {"ra": False, "ra_mix": "1", "wa": False, "wa_decay": "1", "awp": True}
        )
    assert [str(problem) for problem in error.value.problems] == [
        "--ra-mix: cannot be combined with --no-ra. Leave one of them out.",
        "--wa-decay: cannot be combined with --no-wa. Leave one of them out.",
    ]


def test_a_row_of_the_table_of_regularizers_is_a_switch_and_explains_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(REGULARIZERS, "_entries", {**REGULARIZERS._entries, "squeeze": "no:one"})
    assert added_regularizers() == ("squeeze",)
    option = RecipeOption("squeeze", "panel")
    assert option.text == "The regularizer squeeze, on top of any method (default: off)."
    assert option.declared().annotation.__args__[0] == bool | None


def test_help_lists_what_a_plugin_adds(rpat: Rpat, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    page = rpat("train", "--plugin", str(tmp_path / "mine.py"), "--help").out
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", page).split())
    assert "multi-norm, mine (default: pgd)." in words
    assert "Regularizers of plugins: squeeze=true." in words
    assert "squeeze" not in rpat("train", "--help").out
    missing = rpat("train", "--help", "--plugin=gone.py")
    assert (missing.code, "there is no plugin file" in missing.err) == (2, True)


def test_a_regularizer_of_a_plugin_trains(rpat: Rpat, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    command = ["train", *QUICK, "--plugin", str(tmp_path / "mine.py"), "--set", "squeeze.weight=2"]
    answer = rpat(*command, "--ra", "--out", str(tmp_path / "run"))
    assert answer.code == 0, answer.err
    assert "squeeze (weight 2)" in answer.message
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["squeeze"] == {"weight": 2.0}
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"squeeze"' in metrics
    assert '"ra"' in metrics
