"""Suites as lists: in a file, in a recipe, in Python; the same attacks as the text form."""

from pathlib import Path

import pytest
from helpers import load_recipe

from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import AttackSpec, Overrides, parse_suite
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.recipe.summary import summary

SUITE = """
- clean
- quick
- {attack: pgd, steps: 50, restarts: 10, step_size: 2/255}
- attack: cw-pgd-7
  keep: worst
- {attack: zoo, queries: 300}
- autoattack:apgd-ce+square
- attack: transfer:runs/other
  steps: 40
"""
TEXT = "clean,quick,pgd-50x10,cw-pgd-7,zoo-300,autoattack:apgd-ce+square,transfer:runs/other@pgd-40"


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_suite_file_means_what_the_text_means(tmp_path: Path) -> None:
    specs = {spec.label: spec for spec in read_suite(str(write(tmp_path, SUITE)))}
    plain = parse_suite(TEXT)
    assert list(specs) == [spec.label for spec in plain]
    (pgd,) = parse_suite("pgd-50x10", Overrides(step_size=2 / 255))
    (cw,) = parse_suite("cw-pgd-7", Overrides(keep="worst"))
    assert specs == {spec.label: spec for spec in plain} | {pgd.label: pgd, cw.label: cw}
    assert read_suite(TEXT) == plain


def test_files_and_words_mix_and_overrides_fill_in_what_is_open_in_both(tmp_path: Path) -> None:
    path = write(tmp_path, "- pgd\n- {attack: mim, steps: 5}\n- {attack: fgsm, label: one step}\n")
    specs = read_suite(f"bim,{path}", Overrides(steps=3))
    assert [spec.label for spec in specs] == ["bim-3", "pgd-3", "mim-5", "one step"]
    assert specs[-1] == AttackSpec("fgsm", "one step")


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "- clen\n- {attack: pgd, stps: 5, restarts: 0}\n- attack: fgsm\n  steps: 5\n- {steps: 3}\n"
        "- {attack: pgd-20, label: fgsm}\n- {attack: pgd-20, step_size: 2/0}\n- {attack: pgd-5, "
        "steps: 5}\n"
        "- {attack: pgd, keep: wurst}\n- {attack: bim-3, step_size: 0.1}\n- bim-3\n- {attack: "
        "square, steps: 1}\n",
    )
    with pytest.raises(ConfigError) as error:
        read_suite(str(path))
    message = str(error.value).splitlines()[1:]
    expected = [
        ":1: unknown attack 'clen'. Did you mean 'clean'?",
        ":2: stps: unknown key 'stps'. Did you mean 'steps'?",
        ":2: restarts: 0: must be a whole number, at least 1.",
        ":4: steps: fgsm takes no steps. It takes: step_size, eot.",
        ":5: {'steps': 3} does not name an attack.",
        ":6: label: 'fgsm' already means another attack",
        ":7: step_size: '2/0': must be a number",
        ":8: steps: 'pgd-5' fixes it already.",
        ":9: keep: 'wurst': must be one of last, worst.",
        ":11: two different attacks have the label 'bim-3'.",
        ":12: steps: square takes no steps.",
    ]
    assert len(message) == len(expected)
    for line, part in zip(message, expected, strict=True):
        assert f"suite.yaml{part}" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attack: pgd\n", "a suite is a list of attacks. Example: '- clean'"),
        ("", "a suite is a list of attacks."),
        ("- {attack: pgd, attack: mim}\n", "suite.yaml:1: 0.attack: duplicate key."),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_suite(str(write(tmp_path, text)))
    assert message in str(error.value)


def test_a_missing_suite_file_is_named_with_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, SUITE)
    with pytest.raises(
        ConfigError, match=r"there is no such suite file. Did you mean 'suite.yaml'\?"
    ):
        read_suite(str(tmp_path / "siute.yaml"))


def test_a_recipe_takes_the_same_entries_and_gives_them_back(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        "eval:\n  - clean\n  - {attack: pgd, steps: 5, step_size: 2/255, label: my-pgd}\n",
        "r.yaml",
    )
    recipe = load_recipe([config])
    assert [spec.label for spec in parse_suite(recipe.eval)] == ["clean", "my-pgd"]
    assert summary(recipe)["report"] == "clean, my-pgd"
    assert load_recipe([write(tmp_path, to_yaml(recipe), "again.yaml")]) == recipe
    later = load_recipe([config], flags={"--eval": (("eval",), "clean,pgd-3")})
    assert later.eval == ["clean", "pgd-3"]


def test_mistakes_in_a_recipes_suite_have_their_own_lines(tmp_path: Path) -> None:
    config = write(
        tmp_path, "epochs: 3\neval:\n  - clean\n  - pdg\n  - {attack: pgd, stps: 5}\n", "r.yaml"
    )
    with pytest.raises(ConfigError) as error:
        load_recipe([config])
    assert "r.yaml:4: eval.1: unknown attack 'pdg'. Did you mean 'pgd'?" in str(error.value)
    assert "r.yaml:5: eval.2: stps: unknown key 'stps'. Did you mean 'steps'?" in str(error.value)
    with pytest.raises(ConfigError) as error:  # a list laid over another has no lines of that other
        load_recipe([config], flags={"--eval": (("eval",), "clean,pgdd")})
    assert str(error.value).startswith("--eval: eval.1: unknown attack 'pgdd'")
