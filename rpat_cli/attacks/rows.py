"""How rows of the catalogue are made: families of attacks that share a builder and a cost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rpat_cli.attacks.a3_rounds import rounds_of
from rpat_cli.attacks.cascade import STEPS_OF_BEST
from rpat_cli.attacks.row import STEP, AttackRow, Cost, Setting

OWN = ("steps", "restarts", "eot")
"""Settings of our AutoPGD and its relatives that a suite may change."""


def passes_of_apgd(settings: Mapping[str, Any]) -> float:
    """`settings` are those of the library, the standard version's where they are not known yet."""
    steps, restarts = settings.get("n_iter", 100), settings.get("n_restarts", 1)
    return float(steps * restarts * settings.get("eot_iter", 1) * STEP)


def passes_of_targeted(settings: Mapping[str, Any]) -> float:
    return passes_of_apgd(settings) * float(settings.get("n_target_classes", 9))


def passes_of_square(settings: Mapping[str, Any]) -> float:
    return float(settings.get("n_queries", 5000) * settings.get("n_restarts", 1))


def passes_of_autoattack(settings: Mapping[str, Any]) -> float:
    parts = settings.get("attacks") or ("apgd-ce", "apgd-t", "fab-t", "square")
    return sum(PARTS[part].passes({}) for part in parts)


def passes_of_a3(settings: Mapping[str, Any]) -> float:
    """On an image that resists, as long as the directions are not biased."""
    plans = rounds_of(biased=False, classes=10)[: settings.get("rounds", 13)]
    steps = [plan.fraction * plan.restarts * (plan.adi + plan.steps) for plan in plans]
    return float(STEP * sum(steps) * settings.get("eot", 1))


def passes_of_best(settings: Mapping[str, Any]) -> float:  # noqa: ARG001
    return STEP * STEPS_OF_BEST


def draws(settings: Mapping[str, Any]) -> float:
    return float(settings.get("restarts", settings.get("draws", 1)))


def stepping(steps: int, **others: int) -> Cost:
    """The cost of an attack of so many gradient steps, unless its settings say otherwise; `others`
    are what multiplies them, `restarts` and `targets`, with their defaults."""

    def cost(settings: Mapping[str, Any]) -> float:
        passes = STEP * settings.get("steps", steps) * settings.get("eot", 1)
        for key, usual in {"restarts": 1, **others}.items():
            passes *= settings.get(key, usual)
        return float(passes)

    return cost


def gradient(builder: str, description: str, **others: Any) -> AttackRow:
    """An attack of `variants`: PGD with some of its settings fixed."""
    row = AttackRow(
        f"rpat_cli.attacks.variants:{builder}",
        description,
        follows_gradient=True,
        transfers=True,
        trains=True,
    )
    return replace(row, **others)


def autoattack(description: str, version: str, *parts: str) -> AttackRow:
    """A version of AutoAttack, or with `parts` some of its attacks as that version runs them."""
    fixed: dict[str, Setting] = {"version": version}
    if parts:
        fixed["attacks"] = parts
    return AttackRow(
        "rpat_cli.attacks.autoattack:autoattack",
        description,
        fixed=fixed,
        recorded_as="autoattack",
        cost=passes_of_autoattack,
    )


def own(build: str, description: str, cost: Cost, **others: Any) -> AttackRow:
    """An attack of a file of its own, which takes gradient steps."""
    row = AttackRow(
        f"rpat_cli.attacks.{build}",
        description,
        takes=OWN,
        follows_gradient=True,
        transfers=True,
        cost=cost,
    )
    return replace(row, **others)


def smallest(builder: str, description: str, steps: int, **others: Any) -> AttackRow:
    """An attack of `minimum_norm`, which looks for the smallest perturbation."""
    row = AttackRow(
        f"rpat_cli.attacks.minimum_norm:{builder}",
        description,
        defaults={"steps": steps},
        takes=("steps",),
        minimizes=True,
        extra="attacks",
        package="foolbox",
    )
    return replace(row, **others)


def _part(
    name: str, description: str, *, cost: Cost = passes_of_apgd, follows_gradient: bool = True
) -> AttackRow:
    row = autoattack(description, "standard", name)
    return replace(row, name=name, cost=cost, follows_gradient=follows_gradient)


PARTS: Mapping[str, AttackRow] = {
    "apgd-ce": _part("apgd-ce", "AutoPGD on the cross-entropy"),
    "apgd-dlr": _part("apgd-dlr", "AutoPGD on the difference of logits ratio"),
    "apgd-t": _part("apgd-t", "AutoPGD on the targeted ratio", cost=passes_of_targeted),
    "fab": _part(
        "fab", "smallest perturbation across the nearest decision boundary (Croce & Hein 2020)"
    ),
    "fab-t": _part("fab-t", "the same, toward one class after another", cost=passes_of_targeted),
    "square": _part(
        "square",
        "random search with squares, no gradient (Andriushchenko 2020)",
        follows_gradient=False,
        cost=passes_of_square,
    ),
}
"""The parts of AutoAttack by its own names, as its standard version runs them. Those that have no
counterpart of ours are words, too."""
