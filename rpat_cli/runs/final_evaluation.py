"""The evaluation that ends a training: the only part of it that touches the test set."""

from collections.abc import Callable, Iterator

from rpat_cli.data.base import Dataset
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.errors import CheckpointError
from rpat_cli.evaluation.parallel.processes import Jobs, Pool
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import flag_for
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.evaluate import EvalOptions, evaluate_opened, is_evaluated
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.target import OpenedTarget, under_each_threat
from rpat_cli.tracking import as_flags


def evaluate_checkpoints(
    recipe: Recipe,
    folder: RunFolder,
    data: Dataset,
    jobs: Jobs,
    listener: Listener,
    ranks: Pool | None = None,
) -> None:
    """Evaluate the best and the last checkpoint with the attacks of the recipe.

    `ranks` are the other processes of a training that several have shared; they take the place of
    `jobs`. Goes on where an interruption stopped it. Raises `Interrupted` on Ctrl-C and termination
    signals.
    """
    specs = parse_suite(recipe.eval)
    again = f"rpat train --resume {folder.path}{flag_for(recipe)}{as_flags(listener.trackers)}"
    options = EvalOptions(jobs=jobs, again=again, ranks=ranks)
    compute = resolve_compute(recipe.device, "fp32")
    # Worker processes take seconds to start: once for all checkpoints.
    with options.workers(specs, compute, len(data.test)) as workers:
        for name, saved in _checkpoints(folder, bool(recipe.wa), listener.say):
            for opened in under_each_threat(OpenedTarget(saved, recipe, data)):
                if is_evaluated(opened, specs, options):
                    listener.say(f"{name} (epoch {saved.epoch}) has been evaluated already")
                    continue
                images = f"{len(data.test)} test images"
                listener.say(f"evaluating {name} (epoch {saved.epoch}) on {images}")
                evaluate_opened(opened, specs, options, listener, workers=workers)


def _checkpoints(
    folder: RunFolder, averaged: bool, say: Callable[[str], None]
) -> Iterator[tuple[str, SavedModel]]:
    """The checkpoints of a run by name; `last` only if it is not `best`, whose weights are the
    same.

    One that is lost or damaged is said, and costs the others nothing. Raises `CheckpointError` if
    none can be used.
    """
    suffixes = ("", AVERAGED) if averaged else ("",)
    epochs: dict[str, int] = {}
    lost: list[CheckpointError] = []
    for name in [f"{kind}{suffix}" for kind in ("best", "last") for suffix in suffixes]:
        try:
            saved = load_model(folder.path, name)
        except CheckpointError as error:
            say(f"{name} is not evaluated: {error}")
            lost.append(error)
            continue
        epochs[name] = saved.epoch
        if name.startswith("last") and epochs.get(name.replace("last", "best")) == saved.epoch:
            continue
        yield name, saved
    if not epochs:
        raise lost[0]
