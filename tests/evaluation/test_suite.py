import subprocess
import sys
from typing import Any

import pytest

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import SUITES, AttackSpec, Overrides, list_attacks, parse_suite


def labels(text: str, **overrides: float) -> list[str]:
    return [spec.label for spec in parse_suite(text, Overrides(**overrides))]


@pytest.mark.parametrize(
    ("word", "spec"),
    [
        ("clean", AttackSpec("clean", "clean")),
        ("pgd", AttackSpec("pgd", "pgd-20", {"steps": 20})),
        ("pgd-20", AttackSpec("pgd", "pgd-20", {"steps": 20})),
        ("pgd-50x10", AttackSpec("pgd", "pgd-50x10", {"steps": 50, "restarts": 10})),
        ("cw-pgd-7", AttackSpec("cw-pgd", "cw-pgd-7", {"steps": 7})),
        ("fgsm", AttackSpec("fgsm", "fgsm")),
        ("cw-l2-50", AttackSpec("cw-l2", "cw-l2-50", {"steps": 50})),
        ("zoo-2000", AttackSpec("zoo", "zoo-2000", {"queries": 2000})),
        ("autoattack-plus", AttackSpec("autoattack", "autoattack-plus", {"version": "plus"})),
        (
            "square",
            AttackSpec("autoattack", "square", {"version": "standard", "attacks": ("square",)}),
        ),
        ("apgd-t", AttackSpec("apgd-t", "apgd-t")),
        (
            "apgd-ce-50x2",
            AttackSpec("apgd-ce", "apgd-ce-50x2", {"loss": "ce", "steps": 50, "restarts": 2}),
        ),
        ("mm-9", AttackSpec("mm", "mm-9", {"targets": 9})),
        ("mm", AttackSpec("mm", "mm-3", {"targets": 3})),
        ("pgd-7@eot=4", AttackSpec("pgd", "pgd-7@eot=4", {"steps": 7, "eot": 4})),
        (
            "apgd@loss=margin@eot=2",
            AttackSpec("apgd", "apgd@loss=margin@eot=2", {"loss": "margin", "eot": 2}),
        ),
        (
            "pgd@steps=9@step_size=2/255",
            AttackSpec("pgd", "pgd-9@step_size=2/255", {"steps": 9, "step_size": 2 / 255}),
        ),
        (
            "transfer:runs/a@mim-5@eot=3",
            AttackSpec(
                "transfer",
                "transfer:a@mim-5@eot=3",
                {"source": "runs/a", "attack": "mim", "steps": 5, "eot": 3},
            ),
        ),
        (
            "autoattack:square+apgd-ce",
            AttackSpec(
                "autoattack",
                "autoattack:square+apgd-ce",
                {"version": "custom", "attacks": ("square", "apgd-ce")},
            ),
        ),
    ],
)
def test_each_word_means_what_it_says(word: str, spec: AttackSpec) -> None:
    assert parse_suite(word) == [spec]


def test_suites_expand_mix_and_never_run_an_attack_twice() -> None:
    assert labels("standard") == ["clean", "pgd-20", "autoattack"]
    assert labels(" quick , fgsm, pgd-20,clean") == ["clean", "pgd-20", "fgsm"]


def test_overrides_fill_in_what_is_open_and_leave_what_is_written() -> None:
    assert labels("quick,pgd-5", steps=40, restarts=3) == ["clean", "pgd-40x3", "pgd-5x3"]
    (spec,) = parse_suite("pgd-20", Overrides(step_size=0.01, keep="worst"))
    assert spec.settings == {"steps": 20, "step_size": 0.01, "keep": "worst"}


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("pdg", {}, "Did you mean 'pgd'?"),
        ("pgd20", {}, "Did you mean 'pgd-20'?"),
        ("autoatack", {}, "Did you mean 'autoattack'?"),
        ("", {}, "no attack given"),
        ("fgsm-3", {}, "fgsm takes no steps"),
        ("bim-3x2", {}, "bim takes no restarts"),
        ("zoo", {"steps": 5}, "--steps has no effect: no attack in 'zoo' takes it"),
        ("pgd-0", {}, "at least 1"),
        ("autoattack:apgd-te", {}, "Did you mean 'apgd-t'?"),
        (
            "pgd-20",
            {"steps": 50},
            "--steps has no effect: every attack in 'pgd-20' that takes it already fixes it",
        ),
        ("pgd", {"steps": -1}, "--steps: -1 is not positive"),
        ("pgd", {"keep": "wurst"}, "Did you mean 'worst'?"),
    ],
)
def test_mistakes_say_what_is_right(text: str, overrides: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_suite(text, Overrides(**overrides))
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_suite("clean,pdg,fgsm-3", Overrides(steps=0))
    assert len(error.value.problems) == 3


@pytest.mark.parametrize("given", ["quick-5", "transfer:runs/a@quick", [{"attack": "quick"}]])
def test_a_suite_in_place_of_an_attack_is_not_called_unknown(given: Any) -> None:
    with pytest.raises(ConfigError, match="'quick' is a suite, not one attack"):
        parse_suite(given)


def test_the_list_is_complete_and_every_word_can_be_run() -> None:
    words = list_attacks()
    assert set(SUITES) < set(words)
    for word, line in words.items():
        assert line
        for spec in parse_suite(word):
            norm = ATTACKS[spec.name].norms[0]
            ATTACKS[spec.name](Threat(norm, 0.1), **spec.settings)
    assert {"pgd", "fgsm", "bim", "mim", "cw-pgd", "noise"} <= set(words)


def test_help_pages_can_use_it_without_torch() -> None:
    code = (
        "import sys, rpat_cli.evaluation.suite as s; s.list_attacks(); print('torch' in "
        "sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "False"
    )
