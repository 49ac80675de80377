"""Every shipped recipe: its header tells the truth, it repeats no other, its network builds and
takes a step."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import load_recipe

from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.errors import ConfigError
from rpat_cli.methods import raat
from rpat_cli.models.base import build_model
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.shipped import BASES, all_names, find, headline, recipe_names
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.runs import estimate as dry_run
from rpat_cli.runs.estimate import Estimate

COST = re.compile(
    r"# Cost: (\d+) forward and (\d+) backward passes per step of (\d+) images, ([\d,]+) steps\n"
)
FIRST_HOUR = ("quickstart", "fashion-mnist-small-cnn", "cifar10-preact-resnet18-fast")


FURTHER = {
    "generated": " --extra-data FILES",
    "finetune": " --init RUN",
}
"""Flags that a recipe cannot do without, by a part of its name."""

ATTACKS_OF = {"raat-wa": 2}
"""How many attacks a step makes, where it is not one."""


def slow(name: str) -> bool:
    """Large images, large networks, and further data sets of a family that the quick ones
    represent."""
    return any(part in name for part in ("wrn", "tiny", "cifar100", "l2"))


STEPPED = [
    pytest.param(name, marks=pytest.mark.slow if slow(name) else ()) for name in recipe_names()
]


interpolation_term = raat.interpolation_term


def on_all_pairs(step: Any, x_adv: Any, pairs: Any, *others: Any, **options: Any) -> Any:
    """RAAT's term as in a training: it is skipped where no image is classified right yet."""
    return interpolation_term(step, x_adv, torch.ones_like(pairs), *others, **options)


def learned_from(name: str) -> list[str]:
    """The settings of the method that name a network which the recipe leaves to be given."""
    method = yaml.safe_load(find(name).read_text()).get("method")
    return [key for key, value in method.items() if value == ""] if isinstance(method, dict) else []


def whole(name: str) -> Recipe:
    return load_recipe([], [f"method.{key}=RUN" for key in learned_from(name)], recipe=name)


def written_teacher(folder: Path) -> Path:
    """A network for images as CIFAR-10's, to learn from."""
    file = folder / "teacher.pt"
    constants = {"mean": [0.5] * 3, "std": [0.25] * 3}
    architecture = {"name": "small-cnn", "shape": [3, 32, 32], "classes": 10, **constants}
    model = build_model(
        "small-cnn", shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    content = {"architecture": architecture, "recipe": {"model": "small-cnn"}, "epoch": 1}
    save_checkpoint(file, {**content, "model": model.state_dict()})
    return file


def one_step(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Estimate:
    """One training step of two images and one step of the attack, on random images unless the data
    set is embedded."""
    monkeypatch.setattr(dry_run, "STEPS", 1)
    monkeypatch.setattr(raat, "interpolation_term", on_all_pairs)
    little = ["batch_size=2", "attack.steps=1", f"data.root={tmp_path}", "precision=fp32"]
    recipe = whole(name)
    if recipe.attack.strong.from_epoch is not None:
        little.append("attack.strong.steps=1")
    for setting in learned_from(name):
        little.append(f"method.{setting}={written_teacher(tmp_path)}")
    if recipe.data.extra.path is not None:
        images, labels = np.zeros((4, 3, 32, 32), np.uint8), np.arange(4)
        np.savez(tmp_path / "extra.npz", images=images, labels=labels)
        little.append(f"data.extra.path={tmp_path / 'extra.npz'}")
    return dry_run.dry_run(load_recipe([], little, recipe=name))


@pytest.mark.parametrize("name", STEPPED)
def test_it_takes_a_step_at_the_cost_that_its_header_states(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = whole(name)
    took = one_step(name, monkeypatch, tmp_path)
    attack = recipe.attack
    # Each step of the attack that was left out is one forward and one backward pass, no more and no
    # less.
    left_out = (attack.steps if attack.strong.from_epoch is None else attack.strong.steps) - 1
    left_out *= ATTACKS_OF.get(recipe.method.name, 1)
    batches = took.steps_per_epoch * 2 // recipe.batch_size
    stated = COST.search(find(name).read_text())
    assert stated, "the header has no line on cost"
    assert [int(number.replace(",", "")) for number in stated.groups()] == [
        took.forward + left_out,
        took.backward + left_out,
        took.images_per_pass // 2 * recipe.batch_size,
        batches * recipe.epochs,
    ]


@pytest.mark.parametrize("name", all_names())
def test_its_header_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    text = find(name).read_text()
    assert re.match(r"# \S.*\n#\n", text), "the first line says what it is, the second is empty"
    assert "# Source: " in text
    if not name.startswith(BASES):
        further = next((flags for part, flags in FURTHER.items() if part in name), "")
        further += "".join(f" --set method.{setting}=RUN" for setting in learned_from(name))
        launch = f"# Launch: rpat train --recipe {name}{further}\n"
        assert launch in text
        assert "# Expected: " in text
        expected = re.search(r"# Expected: .*\d.*", text)
        assert expected is None or "second-hand transcription" in expected.group()
    assert len(headline(name)) <= 100


def test_no_recipe_repeats_another() -> None:
    resolved = {name: whole(name) for name in recipe_names() if name != "quickstart"}
    same = [(a, b) for a in resolved for b in resolved if a < b and resolved[a] == resolved[b]]
    assert not same
    for name in recipe_names():
        assert len(yaml.safe_load(find(name).read_text())) <= 9, f"{name}: extend a base"


def test_every_cell_of_the_benchmark_tables_has_its_recipe() -> None:
    for data, norm in (
        ("cifar10", "Linf"),
        ("cifar10", "L2"),
        ("cifar100", "Linf"),
        ("tiny-imagenet", "Linf"),
    ):
        for method in ("pgd", "trades", "mart", "consistency"):
            for ra in (False, True):
                name = f"benchmarks/{data}-{norm.lower()}-resnet18-bottleneck-{method}{'+ra' * ra}"
                recipe = whole(name)
                assert (recipe.data.name, recipe.threat.norm, recipe.method.name) == (
                    data,
                    norm,
                    method,
                )
                assert (recipe.model, recipe.epochs, recipe.batch_size) == (
                    "resnet18-bottleneck",
                    110,
                    128,
                )
                assert (recipe.ra is not None) == ra
                assert recipe.threat.eps * 255 == pytest.approx(8 if norm == "Linf" else 128)
                assert recipe.attack.step_size * 255 == pytest.approx(2 if norm == "Linf" else 15)


@pytest.mark.parametrize(
    ("data", "model"),
    [("cifar10", "preact-resnet18"), ("cifar100", "preact-resnet18"), ("cifar10", "wrn-34-10")],
)
def test_rebat_and_rpat_plus_plus_have_theirs(data: str, model: str) -> None:
    plain, with_ra = (
        load_recipe(recipe=f"sotas/{data}-linf-{model}-rebat{ra}") for ra in ("", "+ra")
    )
    for recipe in (plain, with_ra):
        assert (recipe.data.name, recipe.model, recipe.method.name, recipe.epochs) == (
            data,
            model,
            "rebat",
            200,
        )
        assert recipe.wa == WeightAveraging(decay=0.999, start_epoch=105)
        assert recipe.schedule.options["factor"] == 1.5
        assert recipe.attack.bn_mode == "train"
    assert plain.ra is None
    assert with_ra.ra.form == "teacher-kl"


def test_the_stronger_attack_of_rebat_is_the_published_one() -> None:
    strong = load_recipe(recipe="sotas/cifar10-linf-wrn-34-10-rebat-strong").attack.strong
    assert (strong.from_epoch, strong.steps, strong.eps * 255) == (100, 12, pytest.approx(10))


def test_the_first_hour_has_its_recipes_and_they_come_first() -> None:
    assert sorted(recipe_names()[: len(FIRST_HOUR)]) == sorted(FIRST_HOUR)
    assert load_recipe(recipe="quickstart").data.name == "fashion-mini"
    assert "autoattack" in load_recipe(recipe="quickstart").eval


def test_names_are_looked_up_kindly() -> None:
    with pytest.raises(
        ConfigError, match=r"--recipe: unknown recipe 'quickstrat'. Did you mean 'quickstart'\?"
    ):
        load_recipe(recipe="quickstrat")
    with pytest.raises(ConfigError, match="pass it with --config"):
        load_recipe(recipe="my.yaml")
    assert not [name for name in recipe_names() if name.startswith(BASES)]


def test_a_recipe_lies_below_files_and_flags(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: fashion-mini/trades+ra\nepochs: 3\n")
    assert load_recipe([mine]).method.name == "trades"
    recipe = load_recipe([mine], ["ra.weight=2"], recipe="fashion-mini/mart+ra")
    assert (recipe.method.name, recipe.epochs, recipe.ra.weight) == ("trades", 3, 2.0)
