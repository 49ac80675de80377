"""Names in a recipe as people write them: `TRADES`, `ResNet18`, `linf`.

They become the names of our tables as soon as they are read, so that all that follows compares one
spelling.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.attacks.threat import DEFAULT_EPS
from rpat_cli.data import DATASETS, MIXINGS
from rpat_cli.engine import OPTIMIZERS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.methods import METHODS
from rpat_cli.models import MODELS
from rpat_cli.recipe.yaml_lines import KeyPath
from rpat_cli.registry import Registry, as_written

NAMES: Mapping[str, Iterable[str]] = {
    "method": METHODS,
    "attack": TRAINING_ATTACKS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "mix": MIXINGS,
    "data": DATASETS,
    "model": MODELS,
    "data.normalize_as": DATASETS,
    "attack.start": ("uniform", "gaussian", "zero"),
    "attack.bn_mode": ("eval", "train"),
    "ra.form": ("mse", "kl", "cosine", "teacher-kl"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "fp32", "tf32", "bf16", "fp16"),
}
"""Keys whose values are names, and the names; `method` stands for `method.name` too."""


def spelled(values: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """A copy of nested recipe values with the names spelled as our tables have them. What is none
    of their names stays as it is, for the message about it."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            result[key] = spelled(value, here)
        else:
            result[key] = _name(here, value) if isinstance(value, str) else value
    return result


def _name(path: KeyPath, value: str) -> str:
    key = ".".join(path)
    if key == "threat.norm":
        alike = as_written(value.replace("_", "").replace("-", ""), DEFAULT_EPS)
        return alike if alike in DEFAULT_EPS else value
    names = NAMES.get(key.removesuffix(".name"), ())
    return names.spelled(value) if isinstance(names, Registry) else as_written(value, names)
