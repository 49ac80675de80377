"""The recipe's key `init`: what the weights of a training begin with.

    RUN | FILE[:KEY]              a run (its best checkpoint), or a checkpoint of rpat or other code
    robustbench:NAME              a model of RobustBench, from its files on this machine
    torchvision:NAME[@WEIGHTS]    the library's trained weights, such as @IMAGENET1K_V1
    timm:NAME[@pretrained]
    hf:OWNER/REPO[@REVISION][:FILE]    a repository of the Hugging Face hub

Here is only what can be said without reading weights; `rpat_cli.loading.start` reads them.
"""

from typing import Any

import yaml

from rpat_cli.errors import ConfigError
from rpat_cli.models import in_library
from rpat_cli.models.hub_name import HUB, HubName
from rpat_cli.recipe.yaml_loader import Loader
from rpat_cli.records.files import user_path
from rpat_cli.records.regular import read_regular
from rpat_cli.records.run_folder import is_run

SEED = "{seed}"
"""In a sweep file it stands for the seed of the trial."""

PER_TRIAL = f"{SEED} is replaced in the trials of a sweep file only: write the seed itself."

FORMS = (
    "a run folder, a checkpoint file, torchvision:NAME@WEIGHTS, timm:NAME@pretrained, "
    "robustbench:NAME or hf:OWNER/REPO"
)


def check_init(init: str | None) -> None:
    """Raise `ConfigError` for what can be no start."""
    if init is None or in_library(init):
        return
    if init.startswith(HUB):
        HubName.parse(init)
        return
    if not init:
        raise ConfigError(f"names no weights: give {FORMS}.")
    if SEED in init:
        raise ConfigError(PER_TRIAL)
    if ".py:" in init:
        raise ConfigError(f"{init!r} is a program. Weights come from {FORMS}.")
    user_path(init)


def network_of(init: Any) -> str | None:
    """The name of the network that a start is of, where that can be said before it is read: a
    library's network, or that of a run."""
    if not isinstance(init, str):
        return None
    if in_library(init):
        return init.partition("@")[0]
    try:
        path = user_path(init)
        run = next((each for each in (path, path.parent.parent) if is_run(each)), None)
        recipe = run and yaml.load(read_regular(run / "recipe.yaml"), Loader=Loader)
    except (OSError, ValueError, yaml.YAMLError, ConfigError):
        return None  # said where it is read
    name = recipe.get("model") if isinstance(recipe, dict) else None
    return name if isinstance(name, str) else None
