"""What of a recipe's attack does not go together: with its norm, its data, and its method."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.attacks.threat import too_long
from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.methods import METHODS
from rpat_cli.recipe.schema import Recipe

# PGD is imported where it is asked for: it imports torch.


def built_attack(recipe: Recipe) -> object:
    """The attack, or None where it cannot be built, which `_settings` says."""
    from rpat_cli.attacks.threat import Threat

    threat = Threat(recipe.threat.norm, recipe.threat.eps)
    try:
        return TRAINING_ATTACKS[recipe.attack.name].for_training(threat, recipe.attack.settings())
    except ConfigError:
        return None


def _settings(recipe: Recipe) -> Iterator[Problem]:
    from rpat_cli.attacks.threat import Threat

    attack, threat = recipe.attack, recipe.threat
    if METHODS[recipe.method.name].attack_defaults.get("steps") == 0 and attack.steps:
        message = f"the method {recipe.method.name!r} takes no attack steps."
        yield Problem("attack.steps", message, hint="Leave out attack.steps and attack.name.")
    try:
        row = TRAINING_ATTACKS[attack.name]
        row.for_training(Threat(threat.norm, threat.eps), attack.settings())
    except ConfigError as error:
        for problem in error.problems:
            yield replace(problem, key=f"attack.{problem.key}".rstrip("."))


def _of_the_method(recipe: Recipe) -> Iterator[Problem]:
    """Methods that make their adversarial examples themselves, have a loss of their own for the
    attack to climb, or watch its steps."""
    from rpat_cli.attacks.pgd import PGD

    attack, method, built = recipe.attack, METHODS[recipe.method.name], built_attack(recipe)
    if built is None:
        return
    if method.own_examples and not isinstance(built, PGD):
        message = f"the method {recipe.method.name!r} makes its adversarial examples itself."
        yield Problem("attack.name", message, hint="Leave it out.")
    if (method.inner_loss or method.own_examples) and getattr(built, "loss", "ce") != "ce":
        message = f"{recipe.method.name!r} has a loss of its own that the attack climbs."
        hint = f"That of {attack.name} would not be used: leave attack.name out."
        yield Problem("attack.name", message, hint=hint)
    if method.watches_steps and not _is_plain(built):
        message = f"{recipe.method.name!r} watches the steps of plain PGD: one run, no momentum."
        yield Problem("attack", message, hint="Use the attack pgd, with restarts 1.")


def _is_plain(attack: object) -> bool:
    from rpat_cli.attacks.pgd import PGD

    return isinstance(attack, PGD) and attack.restarts == 1 and not attack.decay


def _radius(recipe: Recipe) -> Iterator[Problem]:
    """One that grows, and points outside the ball."""
    from rpat_cli.attacks.pgd import PGD

    attack, built = recipe.attack, built_attack(recipe)
    if built is None:
        return
    if attack.eps_warmup_epochs and not isinstance(built, PGD):
        message = f"only PGD and its variants can grow, not {attack.name}."
        yield Problem("attack.eps_warmup_epochs", message, hint="Leave it out.")
    wide = attack.reach == "box" or (attack.reach or 1) > 1 or (attack.start_scale or 1) > 1
    if wide and not METHODS[recipe.method.name].leaves_ball:
        leaving = [name for name in METHODS if METHODS[name].leaves_ball]
        message = f"{recipe.method.name!r} trains on images within eps."
        hint = f"Leave attack.reach and attack.start_scale at 1. Methods that leave: {leaving}."
        yield Problem("attack.reach", message, hint=hint)


def _lengths(recipe: Recipe) -> Iterator[Problem]:
    attack = recipe.attack
    lengths = {
        "threat.eps": recipe.threat.eps,
        "attack.step_size": attack.step_size,
        "attack.strong.eps": attack.strong.eps,
    }
    for key, length in lengths.items():
        if problem := too_long(recipe.threat.norm, length or 0, _pixels(recipe)):
            yield Problem(key, f"{length:g}: {problem}")


def _pixels(recipe: Recipe) -> int:
    """How many values an image of the recipe's data set has."""
    from rpat_cli.data.folders import DEFAULT_IMAGE_SIZE  # imports torch

    if (shape := DATASETS[recipe.data.name].shape) is not None:
        return prod(shape)
    size = recipe.data.image_size or DEFAULT_IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return height * width * (recipe.data.channels or 3)


def _strong_attack(recipe: Recipe) -> Iterator[Problem]:
    strong = recipe.attack.strong
    if strong.from_epoch is None and (strong.eps or strong.steps):
        message = "has no effect without attack.strong.from_epoch, the epoch it begins with."
        yield Problem("attack.strong", message, hint="Set attack.strong.from_epoch.")


ATTACK_CHECKS = (_settings, _of_the_method, _radius, _lengths, _strong_attack)
