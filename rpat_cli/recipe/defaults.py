"""What a recipe leaves open, filled in from what it says: the data set's own defaults first, then
what follows from threat model, method, attack and epochs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.data import DATASETS
from rpat_cli.engine import COLLABORATORS
from rpat_cli.methods import METHODS
from rpat_cli.recipe.schema import AttackSection, Recipe

if TYPE_CHECKING:
    from rpat_cli.engine.averaging import WeightAveraging
    from rpat_cli.methods.robust_perception import RobustPerception

STEPS = 10
"""Gradient steps of the training attack, if nothing says otherwise: what the papers use."""

OF_DATA_SETS = frozenset(
    {
        *("model", "epochs", "batch_size", "optimizer.lr", "schedule", "threat.eps"),
        *("data.augment", "data.val_size", "data.memory_budget_gb"),
    }
)
"""The keys that data sets bring: all that are in the `defaults` of one, and its eps."""


def of_data_set(given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe values that the data set brings, its eps among them, as far as the given values
    name a known data set and norm. They lie beneath everything given."""
    from rpat_cli.attacks.threat import DEFAULT_EPS

    name = data_name(given)
    if not isinstance(name, str) or name not in DATASETS:
        return {}
    data_set = DATASETS[name]
    threat = given.get("threat", {})
    norm = threat.get("norm", "Linf") if isinstance(threat, Mapping) else "Linf"
    eps = {**DEFAULT_EPS, **data_set.eps}.get(str(norm))
    values = dict(data_set.defaults)
    if eps:
        values["threat"] = {**values.get("threat", {}), "eps": eps}
    return values


def data_name(given: Mapping[str, Any]) -> Any:
    """The name of the data set, as given or by default."""
    default = Recipe.model_fields["data"].get_default(call_default_factory=True).name
    data = given.get("data", {})
    return data.get("name", default) if isinstance(data, Mapping) else data


def complete(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """A copy of the recipe with everything filled in that follows from the rest of it.

    `given` are the values that the recipe was read from: they tell a setting that was chosen from
    one that merely has its default. Nothing is checked here (see `mistakes.contradictions`).
    """
    recipe = recipe.model_copy(
        update={"attack": _attack(recipe), "ra": _robust_perception(recipe, given)}
    )
    return recipe.model_copy(update={"wa": _averaging(recipe)})


def _attack(recipe: Recipe) -> AttackSection:
    usual = _usual_attack(recipe)
    left_open = {key: value for key, value in usual.items() if getattr(recipe.attack, key) is None}
    attack = recipe.attack.model_copy(update=left_open)
    strong = attack.strong
    if strong.from_epoch is None:
        return attack
    follows = {
        "eps": strong.eps or 1.25 * recipe.threat.eps,
        "steps": strong.steps or round(1.2 * (attack.steps or 0)),
    }
    return attack.model_copy(update={"strong": strong.model_copy(update=follows)})


def _usual_attack(recipe: Recipe) -> dict[str, Any]:
    """The settings from the method's paper; where the attack has a start, steps or step size of its
    own (fgsm has one step from x), these come first."""
    from rpat_cli.attacks.threat import Threat

    threat = Threat(recipe.threat.norm, recipe.threat.eps)
    step_size = threat.default_step_size()
    usual = {"start": "uniform", "bn_mode": "eval", "steps": STEPS, "step_size": step_size}
    of_method = dict(METHODS[recipe.method.name].attack_defaults)
    if "step_per_eps" in of_method:
        of_method["step_size"] = of_method.pop("step_per_eps") * threat.eps
    usual |= of_method
    # What an attack has of its own shows in what it makes of the given settings, next to PGD.
    ways = ("start", "steps", "step_size")
    given = {key: value for key, value in recipe.attack.settings().items() if key in ways}
    pgd = TRAINING_ATTACKS["pgd"].for_training(threat, given)
    chosen = TRAINING_ATTACKS[recipe.attack.name].for_training(threat, given)
    own = {key: getattr(chosen, key, usual[key]) for key in ways}
    if all(value == getattr(pgd, key) for key, value in own.items()):
        return usual
    if usual["start"] == "gaussian" and own["start"] == "zero":
        # At x itself the gradient of the TRADES loss is zero: an attack could not leave it.
        own["start"] = "gaussian"
    own["step_size"] = own["step_size"] or step_size  # an attack without steps has none
    return usual | own


def _robust_perception(recipe: Recipe, given: Mapping[str, Any]) -> "RobustPerception | None":
    """The form is the one that the method's paper uses, unless it was given."""
    settings = given.get("ra")
    if recipe.ra is None or not isinstance(settings, Mapping) or "form" in settings:
        return recipe.ra
    return replace(recipe.ra, form=METHODS[recipe.method.name].ra_form)


def _averaging(recipe: Recipe) -> "WeightAveraging | Literal[False] | None":
    """A method that learns from the averaged model turns averaging on; its start follows the
    epochs."""
    averaging = recipe.wa
    if averaging is None and any(part.needs_teacher for part in recipe.parts()):
        averaging = COLLABORATORS["wa"]()
    if not averaging:  # False: it was turned off, whatever the method needs
        return averaging
    return replace(averaging, start_epoch=averaging.start_at(recipe.epochs))
