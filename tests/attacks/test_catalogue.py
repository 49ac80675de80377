"""What holds for every row of the catalogue."""

import subprocess
import sys

import pytest

from rpat_cli.attacks import ATTACKS, TRAINING_ATTACKS
from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.catalogue import NoAttack, Transfer
from rpat_cli.attacks.rows import PARTS
from rpat_cli.attacks.threat import DEFAULT_EPS, Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.words import parse_word

OWN_WORDS = [name for name in ATTACKS if not ATTACKS[name].form]


@pytest.mark.parametrize("name", OWN_WORDS)
def test_every_word_builds_its_attack_in_each_of_its_norms(name: str) -> None:
    row = ATTACKS[name]
    assert (row.name, bool(row.description)) == (name, True)
    spec, _ = parse_word(name)
    for norm, eps in DEFAULT_EPS.items():
        threat = Threat(norm, eps)
        if norm in row.norms:
            assert ATTACKS[spec.name](threat, **spec.settings).threat == threat
        else:
            why = (
                "minimizes .* is undefined" if row.minimizes else f"is defined in .* not in {norm}"
            )
            with pytest.raises(ConfigError, match=f"{name}: {why}"):
                row(threat)


@pytest.mark.parametrize("name", OWN_WORDS)
def test_a_suite_may_set_only_what_the_attack_has(name: str) -> None:
    row = ATTACKS[name]
    assert all(row.accepts(setting) for setting in [*row.takes, *row.defaults, *row.fixed])
    assert set(row.defaults) <= set(row.takes)
    assert row.passes({**row.fixed, **row.defaults}) >= 1


def test_the_parts_of_autoattack_are_those_that_it_knows() -> None:
    threat = Threat("Linf", 0.1)
    for part, row in PARTS.items():
        assert row(threat) == AutoAttack(threat, attacks=(part,))
    with pytest.raises(ConfigError, match=f"Allowed: {', '.join(PARTS)}"):
        AutoAttack(threat, attacks=("none",))


def test_what_is_no_attack_on_the_model_itself() -> None:
    threat = Threat("Linf", 0.1)
    assert ATTACKS["clean"](threat) == NoAttack(threat)
    made = ATTACKS["transfer"](threat, source="runs/a", attack="pgd", steps=7)
    assert made == Transfer("runs/a", "pgd", ATTACKS["pgd"](threat, steps=7))


def test_training_takes_those_that_climb_a_methods_loss() -> None:
    assert list(TRAINING_ATTACKS) == ["noise", "fgsm", "bim", "mim", "pgd", "cw-pgd", "apgd"]
    assert len(TRAINING_ATTACKS) == 7
    with pytest.raises(ConfigError, match="unknown attack 'autoattack'"):
        TRAINING_ATTACKS["autoattack"]


def test_reading_the_rows_imports_no_torch() -> None:
    code = (
        "import sys; from rpat_cli.attacks import ATTACKS;"
        "rows = [(row.description, row.takes, row.transfers) for row in ATTACKS.values()];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
