"""What goes with what in a recipe: what turns itself on, what follows from what, what is refused
and why."""

from typing import Any

import pytest
import torch
import yaml

from rpat_cli.attacks.pgd import PGD
from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.recipe.layers import Layer, flag_layers, resolve, to_yaml
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.runs.build import (
    architecture_for,
    build_attack,
    build_late_augment,
    build_relabel,
    build_strong_attack,
    build_threat,
)
from rpat_cli.runs.new_run import run_name


def recipe(**values: Any) -> Recipe:
    return resolve([Layer("given", values)])


@pytest.mark.parametrize(
    "values",
    [
        {"method": "rebat"},
        {"method": "rebat", "ra": True},
        {"method": "pgd", "ra": {"form": "teacher-kl"}},
    ],
)
def test_what_needs_a_teacher_turns_averaging_on(values: dict[str, Any]) -> None:
    made = recipe(**values, epochs=200)
    assert made.wa == WeightAveraging(decay=0.999, start_epoch=105)
    with pytest.raises(
        ConfigError, match=r"wa: is false, but the method \(.*\) learns from the averaged weights"
    ):
        recipe(**values, wa=False)


def test_averaging_is_off_unless_asked_for_and_follows_the_epochs() -> None:
    assert not recipe(method="trades").wa
    assert not recipe(method="trades", wa=False).wa
    assert recipe(method="trades", wa=True, epochs=40).wa == WeightAveraging(
        decay=0.999, start_epoch=21
    )
    assert recipe(wa={"decay": 0.5, "start_epoch": 3}, epochs=4).wa == WeightAveraging(
        decay=0.5, start_epoch=3
    )
    with pytest.raises(
        ConfigError, match=r"wa.start_epoch: .* after 4 epochs, but there are only 4"
    ):
        recipe(wa={"start_epoch": 4}, epochs=4)
    with pytest.raises(ConfigError, match=r"wa\.dekay: unknown key\..*'decay'"):
        recipe(wa={"dekay": 0.5})


def test_the_resolved_recipe_reads_back_as_itself() -> None:
    made = recipe(
        method="rebat",
        ra=True,
        awp=True,
        mix="mixup",
        label_smoothing="1/10",
        attack={"strong": {"from_epoch": 3}},
        data={"augment_from": {"epoch": 2, "augment": "flip"}},
    )
    assert resolve([Layer("again", yaml.safe_load(to_yaml(made)))]) == made


def test_mixing_needs_labels_that_may_be_mixed() -> None:
    for method in ("pgd", "trades", "consistency", "rebat"):
        assert recipe(method=method, mix="cutmix").mix.name == "cutmix"
    with pytest.raises(
        ConfigError,
        match=r"mix: cutmix cannot be combined with mart, which needs one class per image",
    ):
        recipe(method="mart", mix="cutmix")
    with pytest.raises(
        ConfigError, match=r"mixup cannot be combined with the attack cw-pgd: its loss needs"
    ):
        recipe(attack="cw-pgd", mix="mixup")
    assert (
        recipe(method="mart", label_smoothing=0.1).label_smoothing == 0.1
    )  # the true class is still there
    with pytest.raises(ConfigError, match=r"unknown mixing 'cutmx'.*Did you mean 'cutmix'"):
        recipe(mix="cutmx")


def test_none_takes_a_mixing_back() -> None:
    layers = [
        Layer("file", {"mix": {"name": "cutmix", "alpha": 0.5}}),
        *flag_layers({"--mix": (("mix",), "none")}),
    ]
    assert resolve(layers).mix is None
    assert build_relabel(recipe(), 10) is None
    assert resolve([layers[0]]).mix.options == {"alpha": 0.5, "probability": 1.0}


def test_the_strong_attack_follows_the_usual_one() -> None:
    assert build_strong_attack(recipe()) is None
    made = recipe(data="cifar10", method="rebat", attack={"strong": {"from_epoch": 100}})
    later = build_strong_attack(made)
    assert later is not None
    attack = later.value
    assert isinstance(attack, PGD)
    assert (later.epoch, attack.steps, attack.bn_mode) == (100, 12, "train")
    assert attack.threat.eps == pytest.approx(10 / 255)
    assert attack.step_size == pytest.approx(2 / 255)
    given = recipe(attack={"strong": {"from_epoch": 0, "eps": "9/255", "steps": 3}})
    attack = build_strong_attack(given).value
    assert (attack.threat.eps, attack.steps) == (pytest.approx(9 / 255), 3)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("pgd", ("uniform", 10, 0.025)),
        ("cw-pgd", ("uniform", 10, 0.025)),
        ("bim", ("zero", 10, 0.025)),
        ("mim", ("zero", 10, 0.01)),
        ("fgsm", ("zero", 1, 0.1)),
        ("noise", ("uniform", 0, 0.025)),
    ],
)
def test_a_training_with_another_attack_goes_that_attacks_way(
    name: str, way: tuple[str, int, float]
) -> None:
    made = recipe(attack=name, threat={"norm": "Linf", "eps": 0.1})
    attack = build_attack(made.attack, build_threat(made))
    assert isinstance(attack, PGD)
    assert (attack.start, attack.steps, attack.step_size) == (way[0], way[1], pytest.approx(way[2]))
    assert resolve([Layer("again", yaml.safe_load(to_yaml(made)))]) == made


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].inner_loss])
def test_an_attack_whose_loss_would_not_be_used_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match="attack.name: .* loss of its own that the attack climbs"):
        recipe(attack="cw-pgd", method=method)


@pytest.mark.parametrize("method", ["fat", "gairat"])
@pytest.mark.parametrize("attack", ["apgd", "mim", {"name": "pgd", "restarts": 2}], ids=str)
def test_methods_that_watch_steps_take_plain_pgd_alone(method: str, attack: Any) -> None:
    with pytest.raises(ConfigError, match=f"'{method}' watches the steps of plain PGD"):
        recipe(attack=attack, method=method)
    assert recipe(attack={"name": "pgd", "steps": 5}, method=method).attack.steps == 5


def test_what_is_given_stands_above_the_attacks_way_and_that_above_the_methods() -> None:
    given = recipe(
        attack={"name": "fgsm", "steps": 2, "start": "uniform"}, threat={"eps": 0.1}
    ).attack
    assert (given.start, given.steps, given.step_size) == ("uniform", 2, 0.1)
    assert recipe(
        attack={"name": "mim", "steps": 20}, threat={"eps": 0.1}
    ).attack.step_size == pytest.approx(0.005)
    assert recipe(attack="fgsm", method="rebat").attack.bn_mode == "train"
    assert recipe(attack="cw-pgd", method="mart").attack.start == "gaussian"
    assert recipe(attack="noise", method="trades").attack.start == "uniform"
    # At x itself the KL to f(x) has no slope: from there an attack on it would not move.
    trades = recipe(attack="fgsm", method="trades", threat={"eps": 0.1}).attack
    assert (trades.start, trades.steps, trades.step_size) == ("gaussian", 1, 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"attack": {"step_size": 2}},
            r"attack\.step_size: 2: must be at most 1 in Linf.*Did you mean 2/255",
        ),
        (
            {"attack": {"start": "zero", "restarts": 2}},
            r"attack\.restarts: 2 restarts from one fixed start",
        ),
        (
            {"attack": {"strong": {"eps": "10/255"}}},
            r"attack\.strong: has no effect without attack\.strong\.from_epoch",
        ),
        (
            {"data": {"augment_from": {"augment": "flip"}}},
            r"data\.augment_from: has no effect without data\.augment_from\.epoch",
        ),
        (
            {"optimizer": {"nesterov": True, "momentum": 0}},
            r"optimizer\.nesterov: needs a momentum",
        ),
        (
            {"method": "noise", "attack": "fgsm"},
            r"attack\.steps: .*'noise' takes no attack steps",
        ),
    ],
)
def test_settings_that_would_do_nothing_or_fail_after_the_data_are_read(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**values)


def test_other_augmentations_from_the_middle_on() -> None:
    assert build_late_augment(recipe().data, 32) is None
    later = build_late_augment(
        recipe(data={"augment_from": {"epoch": 5, "augment": "flip:p=1"}}).data, 32
    )
    x = torch.rand(2, 3, 4, 4)
    assert later.epoch == 5
    assert torch.equal(later.value(x), x.flip(-1))
    with pytest.raises(
        ConfigError, match=r"data.augment_from.augment.*unknown augmentation 'flop'"
    ):
        recipe(data={"augment_from": {"epoch": 5, "augment": "flop"}})


def test_parts_and_shares_must_be_possible() -> None:
    with pytest.raises(ConfigError, match="batch of 4 images cannot be computed in 5 parts"):
        recipe(batch_size=4, accumulate=5)
    with pytest.raises(
        ConfigError,
        match=r"data.extra.share: 0.01 of a batch of 4 leaves no image",
    ):
        recipe(batch_size=4, data={"extra": {"path": "x.npz", "share": 0.01}})


def test_name_and_summary_show_what_is_on() -> None:
    made = recipe(
        method="rebat", ra=True, awp=True, mix="cutmix", data={"extra": {"path": "a/gen.npz"}}
    )
    assert "_rebat+ra+wa+awp+cutmix_s0" in run_name(made)
    assert "_trades+fgsm+ra_s0" in run_name(recipe(method="trades", ra=True, attack="fgsm"))
    shown = summary(made)
    assert "70% of gen.npz" in shown["data"]
    assert "cutmix" in shown["data"]
    assert "awp (gamma 0.005" in shown["method"]


def test_normalisation_can_be_that_of_another_data_set_as_published() -> None:
    from types import SimpleNamespace

    from rpat_cli.data import DATASETS

    data = SimpleNamespace(
        shape=(3, 32, 32), class_names=("",) * 100, mean=(0.1,) * 3, std=(0.2,) * 3
    )
    own = architecture_for(recipe(data="cifar100"), data)  # type: ignore[arg-type]
    as_cifar10 = recipe(data={"name": "cifar100", "normalize_as": "cifar10"})
    published = architecture_for(as_cifar10, data)  # type: ignore[arg-type]
    assert (own.mean, own.std) == (data.mean, data.std)
    assert (published.mean, published.std) == (DATASETS["cifar10"].mean, DATASETS["cifar10"].std)
    assert published.classes == 100
    with pytest.raises(ConfigError, match="unknown data set"):
        recipe(data={"name": "cifar100", "normalize_as": "cifar"})


def test_a_key_of_an_earlier_version_is_read_and_can_be_overridden_by_its_new_name() -> None:
    old = Layer("old.yaml", {"data": {"name": "cifar100", "normalise_as": "cifar10"}})
    assert resolve([old]).data.normalize_as == "cifar10"
    new = Layer("flag", {"data": {"normalize_as": "svhn"}})
    assert resolve([old, new]).data.normalize_as == "svhn"
    assert "normalise_as" not in to_yaml(resolve([old]))
    with pytest.raises(ConfigError, match=r"old.yaml: data.normalize_as: unknown data set 'cifar'"):
        resolve([Layer("old.yaml", {"data": {"normalise_as": "cifar"}})])


def test_contradictions_are_listed_together_each_with_its_place() -> None:
    layers = [
        Layer("a.yaml", {"optimizer": {"nesterov": True}}, {("optimizer", "nesterov"): 3}),
        Layer("--set", {"optimizer": {"momentum": 0}, "wa": False, "method": "rebat"}),
    ]
    with pytest.raises(ConfigError) as error:
        resolve(layers)
    assert [(problem.source, problem.key) for problem in error.value.problems] == [
        ("--set", "wa"),
        ("a.yaml:3", "optimizer.nesterov"),
    ]


def test_the_form_of_ra_follows_the_method_unless_it_was_given() -> None:
    assert recipe(method="rebat", ra=True).ra == RobustPerception(form="teacher-kl")
    assert recipe(method="rebat", ra={"weight": 2}).ra.form == "teacher-kl"
    assert recipe(method="rebat", ra={"form": "mse"}).ra.form == "mse"
    off_and_on = [Layer("a", {"method": "rebat", "ra": False}), Layer("b", {"ra": True})]
    assert resolve(off_and_on).ra.form == "teacher-kl"
    assert recipe(method="rebat", ra=RobustPerception()).ra.form == "mse"
