"""A training run from recipe to report: what `rpat train` calls and notebooks import."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.data.base import Dataset
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.callbacks import Checkpoints, EpochLines, MetricsLog, Validation
from rpat_cli.engine.compute import Compute, resolve_compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, Interrupted, Problem
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.load import load_model, load_weights
from rpat_cli.recipe.layers import Layer, read_yaml, resolve, to_yaml
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import load_newest, save_checkpoint
from rpat_cli.records.files import write_whole
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.run_folder import RunFolder, open_run
from rpat_cli.reports.write import write_report
from rpat_cli.runs.build import (
    architecture_for,
    build_data,
    build_extra,
    build_loop,
    build_threat,
)
from rpat_cli.runs.environment import environment
from rpat_cli.runs.evaluate import (
    EvalOptions,
    evaluate_opened,
    is_evaluated,
)
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import create_run
from rpat_cli.runs.target import OpenedTarget, limited, load_sources
from rpat_cli.signals import StopSignals

VALIDATION_BATCH = 250
"""Images per pass when validating, which this process does alone: there are no even pieces to be
made."""


def train_run(
    recipe: Recipe,
    *,
    out: Path | None = None,
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener | None = None,
) -> RunFolder:
    """Train from scratch in a new run folder, evaluate best and last on the test set, and write the
    report.

    `stop_after` ends the session after that many epochs, as a signal would, to be resumed later.
    `jobs` processes share the evaluation, see `EvalOptions`. Raises `RpatError`s: of data, run
    folder, divergence; `Interrupted` after a signal, with everything saved.
    """
    compute = resolve_compute(recipe.device, recipe.precision)
    data = build_data(
        recipe.data, recipe.seed
    )  # before the folder is made: a missing data set leaves no debris
    extra = build_extra(recipe.data.extra, data)
    architecture = architecture_for(recipe, data)
    architecture.build()
    load_sources(
        parse_suite(recipe.eval), architecture, recipe
    )  # better a mistake now than after the training
    folder = create_run(recipe, out)
    _write_recipe(folder, recipe)
    with folder.training():
        return _train(
            recipe, folder, data, extra, compute, None, stop_after, jobs, listener or Listener()
        )


def resume_run(
    path: Path,
    *,
    changes: Sequence[Layer] = (),
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener | None = None,
) -> RunFolder:
    """Go on with a run exactly where it stopped. `changes` may set what does not alter the steps
    already done.

    Raises `ConfigError` for a change that would, `CheckpointError` if there is nothing to resume
    from, `RunFolderError` if another process is at it.
    """
    folder = open_run(path)
    recipe = _changed_recipe(folder, changes)
    listener = listener or Listener()
    compute = resolve_compute(recipe.device, recipe.precision)
    data = build_data(recipe.data, recipe.seed)
    extra = build_extra(recipe.data.extra, data)
    with folder.training():
        state = _last_state(folder, recipe, listener)
        if changes:
            _write_recipe(folder, recipe)
        return _train(recipe, folder, data, extra, compute, state, stop_after, jobs, listener)


def _last_state(folder: RunFolder, recipe: Recipe, listener: Listener) -> dict[str, Any] | None:
    """What the newest checkpoint holds; None where there is none yet."""
    state: dict[str, Any] | None = None
    if folder.checkpoint("last").exists() or folder.checkpoint("last.prev").exists():
        state, remark = load_newest(folder.checkpoint("last"))
        listener.say(remark or f"resuming {folder.path} after epoch {state['training']['epoch']}")
        if _rates_differ(
            recipe, epochs_before=state["recipe"]["epochs"], done=state["training"]["epoch"]
        ):
            listener.say(
                f"note: with {recipe.epochs} epochs from the start, the schedule "
                f"{recipe.schedule.name!r} would have "
                "had other rates in the epochs already done. To split one training into sessions "
                "use --stop-after."
            )
    else:
        listener.say(f"{folder.path} stopped before its first checkpoint: starting it again")
    return state


def _rates_differ(recipe: Recipe, *, epochs_before: int, done: int) -> bool:
    """Whether a run of the recipe's epochs in one go would have had other rates in the epochs
    already done."""
    schedule = recipe.schedule.build(SCHEDULES)
    middles = [epoch + 0.5 for epoch in range(done)]
    return any(
        schedule(middle, epochs_before) != schedule(middle, recipe.epochs) for middle in middles
    )


RESUMABLE = {
    "epochs",
    "device",
    "eval",
    "validation",
    "data.root",
    "data.workers",
    "data.download",
    "data.memory_budget_gb",
}
"""What may be changed when resuming: it leaves the steps already done as they were."""


def _changed_recipe(folder: RunFolder, changes: Sequence[Layer]) -> Recipe:
    saved = read_yaml(folder.recipe)
    before, after = resolve([saved]), resolve([saved, *changes])
    differing = _differing(before.model_dump(), after.model_dump())
    forbidden = [
        key for key in differing if key not in RESUMABLE and key.split(".")[0] not in RESUMABLE
    ]
    if forbidden:
        allowed = ", ".join(sorted(RESUMABLE))
        raise ConfigError(
            *(
                Problem(
                    key,
                    "cannot be changed when resuming: the run would be neither one nor the other.",
                    "--resume",
                )
                for key in forbidden
            ),
            Problem(
                "",
                f"May be changed: {allowed}. For anything else train a new run: rpat train "
                f"--config {folder.recipe}",
            ),
            title="this run cannot go on with another recipe",
        )
    return after


def _differing(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            keys += _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            keys.append(f"{prefix}{key}")
    return sorted(keys)


def _train(
    recipe: Recipe,
    folder: RunFolder,
    data: Dataset,
    extra: TensorSplit | None,
    compute: Compute,
    state: dict[str, Any] | None,
    stop_after: int | None,
    jobs: Jobs,
    listener: Listener,
) -> RunFolder:
    listener = _also_logging(listener, folder)
    seed_everything(recipe.seed)
    architecture = architecture_for(recipe, data)
    model = compute.place(architecture.build())
    with StopSignals() as signals:
        content = partial(_model_content, recipe, architecture, data)
        validation = Validation(
            _validator(recipe, data, compute),
            recipe.validation.every,
            lambda ending, model, record: save_checkpoint(
                folder.checkpoint(f"best{ending}"),
                {**content(model), "epoch": record.epoch, "validation": record.validation},
            ),
        )
        checkpoints = [
            Checkpoints(
                folder.checkpoint("last"), lambda loop: _last_content(content, loop, validation)
            )
        ]
        if recipe.wa:
            average = folder.checkpoint(f"last{AVERAGED}")
            checkpoints.append(Checkpoints(average, lambda loop: _average_content(content, loop)))
        loop = build_loop(
            recipe,
            data,
            model,
            compute,
            # Listeners come before the checkpoint: what they were told is then part of what is
            # saved.
            [validation, MetricsLog(folder.metrics), *listener.callbacks, *checkpoints],
            lambda loop: (
                signals.received is not None
                or (stop_after is not None and loop.epoch >= stop_after)
            ),
            extra,
        )
        if state is not None:
            load_weights(model, state["model"], str(folder.checkpoint("last")))
            loop.load_state_dict({"model": state["model"], **state["training"]})
        finished = loop.run()
    if (
        signals.received is not None
    ):  # it may have come in the last epoch: the final evaluation waits then
        where = (
            "after the last epoch" if finished else f"in epoch {loop.epoch + 1} of {recipe.epochs}"
        )
        raise Interrupted(
            f"stopped {where}; everything is saved. Go on with: rpat train --resume {folder.path}",
            signals.exit_code,
        )
    if not finished:
        listener.say(
            f"stopped after epoch {loop.epoch} as asked. Go on with: rpat train --resume "
            f"{folder.path}"
        )
        return folder
    _final_evaluation(recipe, folder, data, jobs, listener)
    write_report(folder)
    return folder


def _write_recipe(folder: RunFolder, recipe: Recipe) -> None:
    write_whole(
        folder.recipe, to_yaml(recipe, f"Repeat this run: rpat train --config {folder.recipe}")
    )


def _also_logging(listener: Listener, folder: RunFolder) -> Listener:
    """Everything that is said, and every epoch, goes to the run's log too."""

    def log(text: str) -> None:
        with folder.log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    def say(text: str) -> None:
        log(text)
        listener.say(text)

    return Listener(say, (*listener.callbacks, EpochLines(log)), listener.on_progress)


def _validator(
    recipe: Recipe, data: Dataset, compute: Compute
) -> Callable[[nn.Module], dict[str, float]]:
    limit = recipe.validation.limit
    x, y = (data.val if limit is None else limited(data.val, limit)).tensors()
    specs = parse_suite(f"clean,pgd-{recipe.validation.steps}")

    def validate(model: nn.Module) -> dict[str, float]:
        result = evaluate(
            model,
            x,
            y,
            specs,
            build_threat(recipe),
            batch_size=VALIDATION_BATCH,
            device=compute.device,
            seed=recipe.seed,
        )
        clean, robust = result.results
        return {"clean_acc": clean.accuracy.value, "robust_acc": robust.accuracy.value}

    return validate


def _model_content(
    recipe: Recipe, architecture: Architecture, data: Dataset, model: nn.Module
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "architecture": architecture.to_dict(),
        "class_names": list(data.class_names),
        "environment": environment(),
        "model": model.state_dict(),
    }


Content = Callable[[nn.Module], dict[str, Any]]
"""What every checkpoint holds: a model, and all that is needed to build it."""


def _average_content(content: Content, loop: TrainLoop) -> dict[str, Any]:
    """The averaged model by itself, to be evaluated; what resuming needs of it stands in the last
    checkpoint."""
    assert loop.averaging is not None
    return {**content(loop.averaging.model), "epoch": loop.epoch}


def _last_content(content: Content, loop: TrainLoop, validation: Validation) -> dict[str, Any]:
    training = loop.state_dict()
    training.pop("model")
    return {
        **content(loop.model),
        "epoch": loop.epoch,
        "best": validation.best,
        "training": training,
    }


def _final_evaluation(
    recipe: Recipe, folder: RunFolder, data: Dataset, jobs: Jobs, listener: Listener
) -> None:
    """Best and last on the test set, which nothing has looked at before; the same weights are
    measured once.

    After an interruption it goes on where it was: what is measured already is not measured again.
    """
    specs = parse_suite(recipe.eval)
    options = EvalOptions(jobs=jobs, again=f"rpat train --resume {folder.path}")
    compute = resolve_compute(recipe.device, "fp32")
    measured: set[tuple[str, int]] = set()
    with options.workers(
        specs, compute, len(data.test)
    ) as workers:  # once for all: they take seconds to start
        for name, ending in product(("best", "last"), ("", AVERAGED) if recipe.wa else ("",)):
            saved = load_model(folder.path, f"{name}{ending}")
            if (ending, saved.epoch) in measured:
                continue
            measured.add((ending, saved.epoch))
            opened = OpenedTarget(saved, recipe, data)
            if is_evaluated(opened, specs, options):
                listener.say(f"{name}{ending} (epoch {saved.epoch}) is evaluated already")
                continue
            listener.say(
                f"evaluating {name}{ending} (epoch {saved.epoch}) on {len(data.test)} test images"
            )
            evaluate_opened(opened, specs, options, listener, workers=workers)
