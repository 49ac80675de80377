"""What is wrong with a recipe, in words for the person who wrote it, each mistake with its place:
pydantic's errors, and checks of what does not go together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.attacks.threat import wider_than_ball
from rpat_cli.engine import OPTIMIZERS
from rpat_cli.errors import Problem, did_you_mean
from rpat_cli.methods import METHODS
from rpat_cli.recipe.attack_mistakes import ATTACK_CHECKS, built_attack
from rpat_cli.recipe.components import SettingsError
from rpat_cli.recipe.schema import Recipe, recipe_class
from rpat_cli.recipe.yaml_lines import KeyPath

Origins = Mapping[KeyPath, str]
"""The file and line, or the flag, that each value came from."""


def origin_of(path: KeyPath, origins: Origins) -> str:
    """Where the value at `path`, or else the nearest mapping around it, came from."""
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), "")


# ---- pydantic's errors in our words


MOST = 200
"""Errors that are put into words, which takes a millisecond each. A file may have thousands."""


def in_our_words(error: ValidationError, origins: Origins) -> list[Problem]:
    """Every error of a recipe that pydantic found."""
    return _problems(error, origins, (), None, None)


def _problems(
    error: ValidationError,
    origins: Origins,
    prefix: KeyPath,
    allowed: Sequence[str] | None,
    given: Any,
) -> list[Problem]:
    """`allowed` are the keys at `prefix`, where they are the settings of an entry of a registry;
    `given` is then the value there, which has the name of that entry."""
    problems: list[Problem] = []
    found = error.errors()[:MOST]
    for item in found:
        is_unknown = item["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        if not is_unknown and _is_refined(item["loc"], [other["loc"] for other in found]):
            continue
        path = (*prefix, *_keys(item["loc"], is_unknown))
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, SettingsError):
            problems += _problems(inner.error, origins, path, inner.allowed, item["input"])
        elif is_unknown:
            keys = _keys_at(path[:-1]) if allowed is None else allowed
            problems.append(_unknown_key(path, origins, keys, given))
        else:
            message = _with_input(str(inner) if inner is not None else item["msg"], item["input"])
            problems.append(Problem(".".join(path), message, origin_of(path, origins)))
    return problems


def _keys(path: tuple[int | str, ...], is_unknown: bool) -> list[str]:
    """The keys in pydantic's path. An unknown one, at its end, may be called like a kind."""
    last = path[-1:] if is_unknown else ()
    inner = path[: len(path) - len(last)]
    return [str(part) for part in (*(part for part in inner if not _is_kind(part)), *last)]


def _is_kind(part: int | str) -> bool:
    """Whether a part of pydantic's path is a kind of value that was tried, and no key."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)


def _is_refined(path: tuple[int | str, ...], others: Sequence[tuple[int | str, ...]]) -> bool:
    """Whether the value was nearly of another kind: then what is wrong with it there counts."""
    if not path or not _is_kind(path[-1]):
        return False
    return any(len(other) > len(path) and other[: len(path) - 1] == path[:-1] for other in others)


def _unknown_key(path: KeyPath, origins: Origins, allowed: Sequence[str], given: Any) -> Problem:
    name = f" {given['name']!r}" if isinstance(given, Mapping) and "name" in given else ""
    hint = (
        f"Allowed: {', '.join(allowed)}." if allowed else f"The {path[-2]}{name} takes no settings."
    )
    near = did_you_mean(path[-1], allowed)
    return Problem(
        ".".join(path), "unknown key.", origin_of(path, origins), f"{near} {hint}".strip()
    )


def _with_input(message: str, value: Any) -> str:
    """The message begun with what was given, where it does not show it already."""
    message = message[:1].lower() + message[1:].replace("Input should", "should")
    message = message.removeprefix("input ").partition(", unable to parse")[0]
    message = re.sub("a valid dictionary or instance of .*", "a mapping of keys to values", message)
    shown = repr(value)
    if isinstance(value, dict | BaseModel) or shown in message:
        return message
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    return f"{shown}: {message}"


def _keys_at(path: KeyPath) -> list[str]:
    """The keys of the recipe itself, or of one of its sections."""
    section: Any = recipe_class()
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


# ---- what does not go together


def contradictions(recipe: Recipe, origins: Origins) -> list[Problem]:
    """Every mistake in a complete recipe that only shows when several keys are looked at. Better
    now than once the data are read."""
    problems: list[Problem] = []
    for check in CHECKS:
        problems += check(recipe)
    return [
        replace(problem, source=origin_of(tuple(problem.key.split(".")), origins))
        for problem in problems
    ]


def doubts(recipe: Recipe) -> list[str]:
    """What is allowed, and probably not meant."""
    found = []
    if doubt := wider_than_ball(recipe.attack.step_size or 0, recipe.threat.eps):
        found.append(f"note: attack.step_size: {doubt}")
    optimizer = recipe.optimizer
    highest = OPTIMIZERS[optimizer.name].highest_lr
    if optimizer.lr > highest:
        found.append(
            f"note: optimizer.lr: {optimizer.lr:g} is a high peak rate for {optimizer.name}, which "
            f"is usually given at most {highest:g}"
        )
    return found


def _worse_weights(recipe: Recipe) -> Iterator[Problem]:
    """AWP and SAM."""
    if recipe.awp and recipe.sam:
        message = (
            "cannot be combined with awp: both take the loss of a step at worse weights of their "
            "own."
        )
        yield Problem("sam", message, hint="Leave one of them out.")
    if not METHODS[recipe.method.name].own_examples:
        return
    for key in (key for key in ("awp", "sam") if getattr(recipe, key)):
        message = f"{recipe.method.name!r} makes its adversarial examples while it takes its loss."
        yield Problem(key, message, hint=f"Leave {key} out: it needs them before.")


def _collapse(recipe: Recipe) -> Iterator[Problem]:
    from rpat_cli.attacks.pgd import PGD

    action = recipe.on_collapse
    if action in (None, "off"):
        return
    if not recipe.attack.steps or not METHODS[recipe.method.name].uses_attack:
        message = f"{recipe.method.name!r} takes no attack steps: there is no robustness to lose."
        yield Problem("on_collapse", message, hint="Leave it out.")
    built = built_attack(recipe)
    if action != "rollback" or built is None:
        return
    if METHODS[recipe.method.name].own_examples or not isinstance(built, PGD):
        message = f"only PGD can be given more steps, not {recipe.method.name} and its attack."
        yield Problem("on_collapse", message, hint="Choose stop or warn.")


def _networks(recipe: Recipe) -> Iterator[Problem]:
    from rpat_cli.methods.declare import Frozen

    method = recipe.method.build(METHODS)
    for name, network in method.networks.items():
        if isinstance(network, Frozen) and not network.source:
            message = f"the method {recipe.method.name!r} learns from a trained network."
            hint = f"Name its run folder or checkpoint: --set method.{name}=RUN."
            yield Problem(f"method.{name}", message, hint=hint)


def _averaging(recipe: Recipe) -> Iterator[Problem]:
    if recipe.wa is False:
        if any(part.needs_teacher for part in recipe.parts()):
            parts = ", ".join([recipe.method.name, *recipe.regularizers()])
            message = f"is false, but the method ({parts}) learns from the averaged weights."
            yield Problem("wa", message, hint="Leave wa out.")
    elif recipe.wa and recipe.wa.start_at(recipe.epochs) >= recipe.epochs:
        message = (
            f"averaging would start after {recipe.wa.start_epoch} epochs, but there are only "
            f"{recipe.epochs}."
        )
        hint = "Leave it out (it follows the epochs) or choose a smaller one."
        yield Problem("wa.start_epoch", message, hint=hint)


def _mixing(recipe: Recipe) -> Iterator[Problem]:
    if recipe.mix is None:
        return
    because = "needs one class per image, and mixed images have two."
    hint = "Leave mix out."
    if any(part.needs_class for part in recipe.parts()):
        message = f"{recipe.mix.name} cannot be combined with {recipe.method.name}, which {because}"
        yield Problem("mix", message, hint=hint)
    if TRAINING_ATTACKS[recipe.attack.name].needs_class:
        message = (
            f"{recipe.mix.name} cannot be combined with the attack {recipe.attack.name}: its loss "
            f"{because}"
        )
        yield Problem("mix", message, hint=hint)


def _optimizer(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    takes = OPTIMIZERS[optimizer.name].takes
    given = {"nesterov": optimizer.nesterov, "beta2": optimizer.beta2 is not None}
    for key in (key for key, is_given in given.items() if is_given and key not in takes):
        yield Problem(f"optimizer.{key}", f"{optimizer.name} has none.", hint="Leave it out.")
    if optimizer.nesterov and not optimizer.momentum:
        yield Problem("optimizer.nesterov", "needs a momentum above 0.")
    lowest, highest = optimizer.cycle_momentum or (0, 0)
    if lowest > highest:
        message = f"the lowest momentum comes first, and {lowest:g} is above {highest:g}."
        yield Problem("optimizer.cycle_momentum", message)


def _data(recipe: Recipe) -> Iterator[Problem]:
    later, extra = recipe.data.augment_from, recipe.data.extra
    if later.augment and later.epoch is None:
        message = "has no effect without data.augment_from.epoch, the epoch it begins with."
        yield Problem("data.augment_from", message, hint="Set data.augment_from.epoch.")
    if recipe.accumulate > recipe.batch_size:
        message = (
            f"a batch of {recipe.batch_size} images cannot be computed in {recipe.accumulate} "
            "parts."
        )
        yield Problem("accumulate", message)
    if extra.path and not 1 <= round(extra.share * recipe.batch_size) < recipe.batch_size:
        message = (
            f"{extra.share} of a batch of {recipe.batch_size} leaves no image of one of the two "
            "kinds."
        )
        yield Problem("data.extra.share", message)


CHECKS = (
    *ATTACK_CHECKS,
    _worse_weights,
    _collapse,
    _networks,
    _averaging,
    _mixing,
    _optimizer,
    _data,
)
