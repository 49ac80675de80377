"""A recipe in a few lines for the screen and the report."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rpat_cli.evaluation.suite import Entry
from rpat_cli.recipe.schema import Recipe
from rpat_cli.text import counted, show_number


def summary(recipe: Recipe) -> dict[str, str]:
    """Label -> text."""
    attack, threat = recipe.attack, recipe.threat
    return {
        "data": " + ".join(_data_parts(recipe)),
        "model": recipe.model,
        **({"start": recipe.init} if recipe.init else {}),
        "method": " + ".join(_method_parts(recipe)),
        "threat": f"{threat.norm}, eps {show_number(threat.eps)}",
        "attack": (
            f"{attack.name}, {counted(attack.steps or 0, 'step')} of "
            f"{show_number(attack.step_size or 0)}, {attack.start} start"
        ),
        "training": (
            f"{counted(recipe.epochs, 'epoch')} of batch {recipe.batch_size}, lr "
            f"{show_number(recipe.optimizer.lr)} {recipe.schedule.name}, seed {recipe.seed}"
        ),
        "report": ", ".join(str(Entry(entry, "")) for entry in recipe.eval),
    }


def _method_parts(recipe: Recipe) -> list[str]:
    """The method and what is added to it, each with its settings."""
    parts = [_with_settings(recipe.method.name, recipe.method.options)]
    for name, part in {**recipe.regularizers(), **recipe.collaborators()}.items():
        parts.append(_with_settings(name, asdict(part)))
    return parts


def _data_parts(recipe: Recipe) -> list[str]:
    extra, later = recipe.data.extra, recipe.data.augment_from
    parts = [recipe.data.name]
    if extra.paths:
        more = f" and {len(extra.paths) - 1} more" if extra.paths[1:] else ""
        parts.append(f"{extra.share:.0%} of {Path(extra.paths[0]).name}{more}")
    parts += map(_augment, recipe.data.augment)
    if later.epoch is not None:
        parts.append(f"from epoch {later.epoch} {', '.join(map(_augment, later.augment))}")
    if recipe.mix:
        parts.append(recipe.mix.name)
    if recipe.label_smoothing:
        parts.append(f"label smoothing {show_number(recipe.label_smoothing)}")
    return parts


def _augment(spec: str | Mapping[str, Any]) -> str:
    return spec if isinstance(spec, str) else ", ".join(spec)


def _with_settings(name: str, settings: Mapping[str, Any]) -> str:
    shown = ", ".join(
        f"{key} {show_number(value) if isinstance(value, float) else value}"
        for key, value in settings.items()
        if value is not None
    )
    return f"{name} ({shown})" if shown else name
