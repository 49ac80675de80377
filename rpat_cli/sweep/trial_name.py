"""The name of a trial and of its folder: a short hash of its recipe that later versions of rpat
repeat."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from rpat_cli.recipe.schema import Recipe
from rpat_cli.sweep.axes import UNTRAINED

UNTRAINED_DATA = ("root", "download", "workers", "memory_budget_gb")
"""Keys of the recipe's `data` that a trained model does not depend on either."""

FIRST_KEYS = frozenset(
    {
        *("accumulate", "awp", "batch_size", "consistency", "device", "epochs", "eval"),
        *("label_smoothing", "method", "mix", "model", "plugins", "precision", "ra", "schedule"),
        *("seed", "wa", "threat.eps", "threat.norm"),
        *("attack.bn_mode", "attack.name", "attack.restarts", "attack.start", "attack.step_size"),
        *("attack.steps", "attack.strong.eps", "attack.strong.from_epoch", "attack.strong.steps"),
        *("data.augment", "data.augment_from.augment", "data.augment_from.epoch"),
        *("data.extra.path", "data.extra.share", "data.image_size", "data.name"),
        *("data.normalize_as", "data.val_size"),
        *("optimizer.clip_norm", "optimizer.lr", "optimizer.momentum", "optimizer.nesterov"),
        *("optimizer.warmup_epochs", "optimizer.weight_decay"),
        *("validation.every", "validation.limit", "validation.steps"),
    }
)
"""The keys of a recipe when the first sweep folders were written."""

ADDED_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "trades": {"passes": "clean-first"},
    "wa": {"form": "ema", "buffers": "average"},
    "awp": {"parameters": "weights", "statistics": "perturbed"},
    "cosine": {"per": "step"},
    "linear": {"per": "step"},
    "one-cycle": {"shape": "linear", "initial": 0.0, "final": 0.0, "per": "step"},
}
"""Settings that entries of the tables have been given since, with the defaults that mean what was
done before."""


def trial_name(recipe: Recipe) -> str:
    """A short hash of all that the trained weights depend on."""
    values = recipe.model_dump(mode="json", exclude=set(UNTRAINED))
    for key in UNTRAINED_DATA:
        values["data"].pop(key)
    values = _without_added(values, _defaults(type(recipe)))
    for name, added in ADDED_SETTINGS.items():
        sections = {part["name"]: part for part in (values["method"], values["schedule"])}
        section = sections.get(name) or values.get(name)
        for setting, default in added.items():
            if isinstance(section, dict) and section.get(setting) == default:
                del section[setting]
    # The name that this key had when the first sweep folders were written: theirs stay valid.
    values["data"]["normalise_as"] = values["data"].pop("normalize_as")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _without_added(
    values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Without the keys that were added later and have their default: with that they mean what was
    done before they were there, and folders keep their names."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if f"{prefix}{key}" in FIRST_KEYS:
            kept[key] = value
        elif isinstance(value, dict) and isinstance(default, dict):
            if inner := _without_added(value, default, f"{prefix}{key}."):
                kept[key] = inner
        elif value != default:
            kept[key] = value
    return kept


@cache
def _defaults(kind: type[Recipe]) -> dict[str, Any]:
    return kind().model_dump(mode="json")
