"""The package behind `rpat`. `import rpat` is what people use (`rpat_cli/api/rpat/`): its functions
have the names and types of the command line's options. The three below have taken recipe keys since
before that; they go on doing so, and run the same code.

import rpat_cli
run = rpat_cli.train(method="consistency", ra=True, epochs=10)
result, file = rpat_cli.evaluate(run, "clean,pgd-20,autoattack")
model = rpat_cli.load_model(run).model          # images in [0, 1] to logits
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpat_cli.calls.imports import unnoticed
from rpat_cli.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rpat_cli.evaluation.evaluate import Evaluation
    from rpat_cli.evaluation.parallel.processes import Jobs
    from rpat_cli.loading.saved_model import SavedModel
    from rpat_cli.records.run_folder import RunFolder

__all__ = ["__version__", "evaluate", "load_model", "train"]


def train(
    config: "str | Path | None" = None,
    *,
    recipe: str | None = None,
    out: "str | Path | None" = None,
    say: "Callable[[str], None] | None" = None,
    trust: bool = False,
    **keys: Any,
) -> "RunFolder":
    """Train one run, as `rpat train` does, and return its folder.

    `recipe` names a shipped recipe, whose keys the recipe file `config` overrides; keywords are
    recipe keys and override both: `method={"name": "trades", "beta": 3}`,
    `threat={"eps": "8/255"}`. `data` is the name of a data set, or images: `(x, y)`, a
    `torch.utils.data.Dataset`, or `{"train": ..., "test": ...}` of these; without test images, a
    fifth is held out. `say=print` prints a line for every epoch and every attack; without
    it nothing is printed. Code that the files name, plugins for example, runs only with
    `trust=True`, or if `plugins` names it as well. Raises `ConfigError`, listing every mistake, and
    other `RpatError`s; what fails in a plugin is a `UserCodeError` raised from its own error. The
    caller's random generators, threads, defaults and loggers come out as they went in.
    """
    with unnoticed():
        from rpat_cli.calls import session
        from rpat_cli.calls.progress import showing
        from rpat_cli.recipe.layers import Layer
        from rpat_cli.runs.caller import images_in

    images, keys = images_in(keys, training=True)
    given = [Layer("train()", keys, by_user=True)]
    with showing(say or False) as listener:
        return session.training(
            given,
            images,
            listener,
            recipe=recipe,
            configs=[Path(config)] if config is not None else [],
            out=Path(out) if out is not None else None,
            trust=trust,
        )


def evaluate(
    target: "str | Path | RunFolder | nn.Module | None" = None,
    attack: "str | Sequence[str]" = "standard",
    *,
    checkpoint: str = "best",
    limit: int | str | None = None,
    images: "str | Path | Sequence[int | str] | None" = None,
    jobs: "Jobs" = 1,
    fast: bool = False,
    surrogates: "Mapping[str, str | Callable[..., Tensor]] | None" = None,
    say: "Callable[[str], None] | None" = None,
    trust: bool = False,
    **keys: Any,
) -> "tuple[Evaluation, Path]":
    """Evaluate a run folder, a checkpoint file or, without `target`, the newest run, as `rpat eval`
    does. Returns the evaluation and the JSON file that holds it.

    `torchvision:NAME`, `timm:NAME`, `FILE.py:FUNCTION` and a model in memory, which takes images in
    [0, 1], need a data set: `evaluate(model, "pgd-50,autoattack", data="cifar10")`, or test images:
    `data=(x, y)`, or a `torch.utils.data.Dataset`. Their results go to `runs/external/NAME/evals/`.

    `attack` is what `--attack` takes, as one string or a list. `limit` evaluates on a stratified
    subset of that many test images, `limit="first:100"` on the first ones; `images`, a text file or
    a list of numbers or file names, on those. `jobs` ("auto" or a number) processes share the
    work; they import the script that calls this, in which the call must be below
    `if __name__ == "__main__":`. `fast` lets long attacks search in bfloat16. `surrogates`,
    {module: "identity", "relu", "FILE.py:FUNCTION" or a function}, are what the attacks' gradients
    pass in place of modules. `say` and `trust` are as in `train`: a run that names a plugin needs
    `trust=True`, or `plugins=[FILE]`. Keywords are recipe keys that override the run's recipe:
    `threat={"norm": "L2"}`, `data={"root": "/data"}`. Raises `RpatError`s.
    """
    with unnoticed():
        from rpat_cli.calls import session
        from rpat_cli.calls.progress import showing
        from rpat_cli.data.choice import chosen_by
        from rpat_cli.recipe.layers import Layer
        from rpat_cli.runs.caller import as_target, images_in

    own, keys = images_in(keys, training=False)
    with showing(say or False) as listener:
        measured = session.evaluation(
            as_target(target, "evaluate()"),
            attack,
            [Layer("evaluate()", keys, by_user=True)],
            own,
            listener,
            {"limit": chosen_by(limit, images), "jobs": jobs, "fast": fast},
            checkpoint=checkpoint,
            surrogates=surrogates or {},
            trust=trust,
        )
    return measured.evaluation, measured.file


def load_model(
    path: "str | Path | RunFolder",
    checkpoint: str = "best",
    *,
    trust: bool = False,
    **keys: Any,
) -> "SavedModel":
    """The trained model of a run folder or checkpoint file, in eval mode; its `model` maps images
    (B, C, H, W) in [0, 1] to logits (B, classes).

    For a file that other code has written, name its data set, and its network if it cannot be
    recognized by its weights:
    `load_model("last.model", data="cifar10", model="resnet18-bottleneck")`. A run that names a
    plugin runs that code only with `trust=True`, or if `plugins=[FILE]` names it as well. Raises
    `RpatError`s.
    """
    with unnoticed():
        from rpat_cli.calls.model import read_model
        from rpat_cli.recipe.layers import Layer

    given = Layer("load_model()", keys, by_user=True)
    return read_model("load_model", path, checkpoint, [given], trust=trust)
