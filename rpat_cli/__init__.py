"""rpat: train image classifiers that resist adversarial perturbations, and measure honestly how well they do.

import rpat_cli as rpat
run = rpat.train(method="consistency", ra=True, epochs=10)
result, file = rpat.evaluate(run.path, "clean,pgd-20,autoattack")
model = rpat.load_model(run.path).model          # images in [0, 1] to logits
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rpat_cli.eval_run import SavedModel
    from rpat_cli.evaluation.evaluate import Evaluation
    from rpat_cli.run_folder import RunFolder

__all__ = ["__version__", "evaluate", "load_model", "train"]


def train(config: "str | Path | None" = None, *, out: "str | Path | None" = None, **recipe: Any) -> "RunFolder":
    """Train one run, as `rpat train` does, and return its folder.

    `config` is a recipe file; the keywords are recipe keys and override it: `method={"name": "trades", "beta": 3}`,
    `threat={"eps": "8/255"}`. Raises `ConfigError` with every mistake at once, and the other `RpatError`s.
    """
    from rpat_cli.recipe_io import Layer, read_yaml, resolve
    from rpat_cli.train_run import train_run

    files = [read_yaml(Path(config))] if config is not None else []
    return train_run(resolve([*files, Layer("train()", recipe)]), out=Path(out) if out is not None else None)


def evaluate(
    target: "str | Path | None" = None, attack: str = "standard", *, checkpoint: str = "best"
) -> "tuple[Evaluation, Path]":
    """Evaluate a run folder, a checkpoint file or the newest run, as `rpat eval` does; also returns the JSON file."""
    from rpat_cli.eval_run import eval_run
    from rpat_cli.evaluation.suite import parse_suite

    return eval_run(Path(target) if target is not None else None, parse_suite(attack), checkpoint=checkpoint)


def load_model(path: "str | Path", checkpoint: str = "best") -> "SavedModel":
    """The trained model of a run folder or checkpoint file, in eval mode, from images in [0, 1] to logits."""
    from rpat_cli.eval_run import load_model as load

    return load(path, checkpoint)
