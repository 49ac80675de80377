"""What the entries that plugins add to the tables must look like.

One of the wrong kind would fail much later, far from the line that added it.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from rpat_cli.attacks import ATTACKS
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic
from rpat_cli.diagnostics.base import EVALUATION_KEYS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.evaluation.suite import SUITES
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS
from rpat_cli.recipe.schema import Recipe
from rpat_cli.registry import Registry
from rpat_cli.tracking import TRACKERS
from rpat_cli.tracking.base import Tracker
from rpat_cli.user_code import where_defined


def _check_method(name: str, entry: Any) -> None:
    _check_part("method", name, entry)
    _check_call("method", name, entry, "method(step)")


def _check_regularizer(name: str, entry: Any) -> None:
    _check_part("regularizer", name, entry)
    _check_call("regularizer", name, entry, "regularizer(step, outcome)")
    if name in Recipe.model_fields:
        raise TypeError(
            f"the regularizer {name!r} has the name of a key of the recipe; choose another name"
        )


def _check_part(kind: str, name: str, entry: Any) -> None:
    from rpat_cli.methods.declare import Needs

    if not (isinstance(entry, type) and issubclass(entry, Needs) and is_dataclass(entry)):
        raise TypeError(
            f"the {kind} {name!r} must be a frozen dataclass that inherits from "
            "rpat_cli.methods.declare.Needs"
        )
    if not (isinstance(entry.views, int) and entry.views >= 1):
        raise TypeError(f"views of the {kind} {name!r} must be a number of at least 1")
    if not isinstance(entry.attack_defaults, Mapping):
        raise TypeError(
            f"attack_defaults of the {kind} {name!r} must be settings of an attack, as "
            "rpat_cli.methods.declare.attack_settings(start='gaussian') makes them"
        )


def _check_attack(name: str, row: Any) -> None:
    if not isinstance(row.build, str) and not callable(row.build):
        raise TypeError(f"the attack {name!r} must be a callable (threat, **settings) -> attack")
    if name in SUITES or re.search(r"[,:@+\s]", name):
        raise TypeError(f"the attack {name!r} cannot be written in a suite; choose another name")


def _check_data_set(name: str, entry: Any) -> None:
    from rpat_cli.data.base import DatasetSpec

    if not isinstance(entry, DatasetSpec):
        raise TypeError(f"the data set {name!r} must be a rpat_cli.data.base.DatasetSpec")


def _check_model(name: str, entry: Any) -> None:
    _check_form("model", name, entry, "model(channels, image_size, classes)", 3)


def _check_schedule(name: str, entry: Any) -> None:
    _check_dataclass("schedule", name, entry)
    _check_call("schedule", name, entry, "schedule(epoch, epochs)")


def _check_mixing(name: str, entry: Any) -> None:
    _check_dataclass("mixing", name, entry)
    _check_call("mixing", name, entry, "mixing(x, y, views)")


def _check_augmentation(name: str, entry: Any) -> None:
    _check_form("augmentation", name, entry, "augmentation(image_size, **settings)", 1)
    _, *settings = inspect.signature(entry).parameters.values()
    for setting in settings:
        if not _is_checkable(entry, setting.name):
            raise TypeError(
                f"{where_defined(entry)}: the setting {setting.name!r} of the augmentation "
                f"{name!r} needs a type that values can be checked against, such as int or "
                "float | None"
            )


def _is_checkable(function: Callable[..., Any], parameter: str) -> bool:
    """Whether `isinstance` can check a parameter's value against its type."""
    from rpat_cli.data.augment import type_of_setting

    try:
        field = inspect.signature(function, eval_str=True).parameters[parameter]
        isinstance(None, type_of_setting(field))
    except (TypeError, NameError):  # list[int]; a name that only type checkers import
        return False
    return field.annotation is not inspect.Parameter.empty


def _check_dataclass(kind: str, name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and is_dataclass(entry)):
        raise TypeError(
            f"{where_defined(entry)}: the {kind} {name!r} must be a frozen dataclass, whose fields "
            "are its settings in a recipe"
        )


def _check_call(kind: str, name: str, entry: type, form: str) -> None:
    """Raise `TypeError` if objects of a class cannot be called as `form` says."""
    if not any("__call__" in each.__dict__ for each in entry.__mro__):
        where = where_defined(entry)
        raise TypeError(f"{where}: the {kind} {name!r} has no __call__; it is called as {form}")
    _check_form(kind, name, entry.__call__, form, 1 + form.count(",") + 1)


def _check_form(kind: str, name: str, function: Any, form: str, arguments: int) -> None:
    """Raise `TypeError` if what was added does not take so many arguments by their places."""
    where = where_defined(function)
    if not callable(function):
        raise TypeError(f"{where}: the {kind} {name!r} must be a callable {form}")
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError as error:
        raise TypeError(
            f"{where}: the {kind} {name!r} is called as {form}, and cannot be: {error}"
        ) from None
    except ValueError:  # some builtins have no signature: calling them will show
        pass


def _check_diagnostic(name: str, entry: Any) -> None:
    if not isinstance(entry, Diagnostic):
        raise TypeError(f"the diagnostic {name!r} must be a rpat_cli.diagnostics.Diagnostic")
    if (entry.measure is None) == (entry.prepare is None):
        raise TypeError(f"the diagnostic {name!r} must have either a measure or a prepare")
    if name in EVALUATION_KEYS:
        raise TypeError(
            f"the diagnostic {name!r} has the name of a key of the evaluation's JSON; choose "
            "another name"
        )


def _check_tracker(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Tracker)):
        raise TypeError(
            f"the tracker {name!r} must be a class that inherits from "
            "rpat_cli.tracking.base.Tracker"
        )
    if not re.fullmatch(r"\w[\w.-]*", name):  # it is also that of a folder
        raise TypeError(
            f"the tracker {name!r} cannot be written after --track; choose another name"
        )


CHECKS: tuple[tuple[Registry[Any], Callable[[str, Any], None]], ...] = (
    (METHODS, _check_method),
    (REGULARIZERS, _check_regularizer),
    (ATTACKS, _check_attack),
    (MODELS, _check_model),
    (DATASETS, _check_data_set),
    (AUGMENTATIONS, _check_augmentation),
    (MIXINGS, _check_mixing),
    (SCHEDULES, _check_schedule),
    (DIAGNOSTICS, _check_diagnostic),
    (TRACKERS, _check_tracker),
)
