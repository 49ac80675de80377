"""Attacks, norms and names as people write them: in other case, or with another sign between."""

import pytest

from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import layers_of, resolve


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("PGD-20", "pgd-20"),
        ("PGD-50x10", "pgd-50x10"),
        ("Pgd-50X10", "pgd-50x10"),
        ("AutoAttack", "autoattack"),
        ("AutoAttack:APGD-CE+Square", "autoattack:apgd-ce+square"),
        ("Clean,FGSM", "clean,fgsm"),
        ("QUICK", "quick"),
        ("CW-PGD", "cw-pgd"),
        ("Transfer:runs/A@PGD-5", "transfer:runs/A@pgd-5"),
    ],
)
def test_names_of_attacks_have_no_case(written: str, read: str) -> None:
    assert parse_suite(written) == parse_suite(read)
    if written not in ("QUICK", "Clean,FGSM"):
        assert parse_suite([{"attack": written}]) == parse_suite(read)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pgd-20-2", "pgd-20x2"),
        ("PGD-50-10", "pgd-50x10"),
        ("pgd20", "pgd-20"),
        ("PGD20", "pgd-20"),
        ("pgd_20", "pgd-20"),
        ("pgd-20*2", "pgd-20x2"),
        ("pgd-20/2", "pgd-20x2"),
        ("CW", "cw-pgd"),
        ("cw", "cw-pgd"),
        ("C&W", "cw-pgd"),
        ("cw-100", "cw-pgd-100"),
        ("aa", "autoattack"),
        ("AA", "autoattack"),
        ("auto-attack", "autoattack"),
        ("auto_attack", "autoattack"),
        ("i-fgsm", "bim"),
        ("mi-fgsm-10", "mim-10"),
        ("natural", "clean"),
        ("autopgd", "apgd"),
    ],
)
def test_other_names_are_met_with_the_one_that_is_meant(written: str, meant: str) -> None:
    parse_suite(meant)
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        parse_suite(written)


@pytest.mark.parametrize(
    ("key", "written", "read"),
    [
        ("threat.norm", "linf", "Linf"),
        ("threat.norm", "LINF", "Linf"),
        ("threat.norm", "l_inf", "Linf"),
        ("threat.norm", "l2", "L2"),
        ("threat.norm", "L_2", "L2"),
        ("threat.norm", "l1", "L1"),
        ("method", "TRADES", "trades"),
        ("method.name", "Mart", "mart"),
        ("schedule", "Cosine", "cosine"),
        ("attack", "FGSM", "fgsm"),
        ("mix", "CutMix", "cutmix"),
        ("model", "ResNet18", "resnet18"),
        ("model", "WRN-34-10", "wrn-34-10"),
        ("data", "CIFAR10", "cifar10"),
        ("data.name", "Fashion-MNIST", "fashion-mnist"),
        ("data.normalize_as", "CIFAR10", "cifar10"),
        ("model", "wrn_34_10", "wrn-34-10"),
        ("ra.form", "MSE", "mse"),
        ("device", "CPU", "cpu"),
        ("precision", "BF16", "bf16"),
    ],
)
def test_names_in_recipes_have_no_case(key: str, written: str, read: str) -> None:
    assert resolve(layers_of(assignments=[f"{key}={written}"])) == resolve(
        layers_of(assignments=[f"{key}={read}"])
    )
