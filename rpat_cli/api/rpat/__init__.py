"""rpat: train image classifiers that resist adversarial perturbations, and measure reliably how
robust they are.

import rpat
run = rpat.train(method="trades", ra=True, epochs=10)      # the names are those of `rpat train`
print(run)                                                 # the table of the report
result = rpat.evaluate(run, "clean,pgd-20,autoattack")
model = rpat.load_model(run)                               # images in [0, 1] to logits

This folder is installed as the package `rpat`. It holds no code of its own: every name is taken
from `rpat_cli` when it is first used, so that `import rpat` takes no time and imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rpat_cli.version import __version__

if TYPE_CHECKING:
    from rpat_cli.attacks.threat import Threat
    from rpat_cli.calls.evaluate import evaluate
    from rpat_cli.calls.model import LoadedModel, load_model
    from rpat_cli.calls.push import push
    from rpat_cli.calls.result import EvalResult
    from rpat_cli.calls.run import Run, open_run
    from rpat_cli.calls.train import train
    from rpat_cli.engine.callback import Callback
    from rpat_cli.errors import ConfigError, RpatError, UserCodeError
    from rpat_cli.export.push import Pushed
    from rpat_cli.records.metrics import EpochRecord
    from rpat_cli.runs.listing import RunSummary, list_runs

    from . import attacks, datasets, losses, methods, models

__all__ = [
    "Callback",
    "ConfigError",
    "EpochRecord",
    "EvalResult",
    "LoadedModel",
    "Pushed",
    "RpatError",
    "Run",
    "RunSummary",
    "Threat",
    "UserCodeError",
    "__version__",
    "attacks",
    "datasets",
    "evaluate",
    "list_runs",
    "load_model",
    "losses",
    "methods",
    "models",
    "open_run",
    "push",
    "train",
]

_HOMES = {
    "Callback": "rpat_cli.engine.callback",
    "ConfigError": "rpat_cli.errors",
    "EpochRecord": "rpat_cli.records.metrics",
    "EvalResult": "rpat_cli.calls.result",
    "LoadedModel": "rpat_cli.calls.model",
    "Pushed": "rpat_cli.export.push",
    "RpatError": "rpat_cli.errors",
    "Run": "rpat_cli.calls.run",
    "Threat": "rpat_cli.attacks.threat",
    "UserCodeError": "rpat_cli.errors",
    "evaluate": "rpat_cli.calls.evaluate",
    "RunSummary": "rpat_cli.runs.listing",
    "list_runs": "rpat_cli.runs.listing",
    "load_model": "rpat_cli.calls.model",
    "open_run": "rpat_cli.calls.run",
    "push": "rpat_cli.calls.push",
    "train": "rpat_cli.calls.train",
}
"""The module of each name; the others in `__all__` are modules beside this one."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rpat_cli.calls.imports import unnoticed

    with unnoticed():
        if name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            value = import_module(f"{__name__}.{name}")
    globals()[name] = value  # from now on Python finds it by itself
    return value


def __dir__() -> list[str]:
    return __all__
