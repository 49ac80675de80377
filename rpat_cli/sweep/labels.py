"""What people call a combination of axis values: `trades + ra, optimizer.lr=0.05`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpat_cli.recipe.merging import NAMED
from rpat_cli.recipe.schema import switches
from rpat_cli.sweep.spec import Axes
from rpat_cli.text import show_number

EXTENDS = "extends"
"""The axis over whole recipes: the recipe that each value names lies below everything else."""


def label_of(axes: Axes) -> str:
    """`trades + ra, optimizer.lr=0.05`: names need no key, other values are shown with theirs."""
    axes = {_short_key(key): value for key, value in axes.items()}
    names = []
    if EXTENDS in axes:
        names.append(Path(str(axes[EXTENDS])).name.removesuffix(".yaml"))
    names += [shown(value) for key, value in axes.items() if key in NAMED and value]

    switched = {key: value for key, value in axes.items() if key in switches()}
    on = [key + shown_settings(value) for key, value in switched.items() if value]
    head = " + ".join(filter(None, [" ".join(names), *on]))
    # Next to a name, the absence of a switch goes without saying.
    off = [f"no {key}" for key, value in switched.items() if not value and not names]

    known = (*NAMED, *switches(), EXTENDS)
    others = [f"{key}={shown(value)}" for key, value in axes.items() if key not in known]
    return ", ".join(filter(None, [head, *off, *others])) or "base"


def _short_key(key: str) -> str:
    """`method.name` is the same choice as `method`."""
    section = key.removesuffix(".name")
    return section if section in NAMED else key


def shown(value: Any) -> str:
    """One axis value, short: a section with a name as `name(key=value)`, a list as `a+b`."""
    if isinstance(value, float):
        return show_number(value)
    if isinstance(value, Mapping):
        settings = {key: setting for key, setting in value.items() if key != "name"}
        return str(value.get("name", "")) + shown_settings(settings)
    if isinstance(value, list):
        return "+".join(map(shown, value))
    return str(value)


def shown_settings(value: Any) -> str:
    """`(weight=2, mix=0.7)`; nothing for what has no settings."""
    if not isinstance(value, Mapping) or not value:
        return ""
    settings = [f"{key}={shown(setting)}" for key, setting in value.items()]
    return f"({', '.join(settings)})"
