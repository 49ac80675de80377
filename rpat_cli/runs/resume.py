"""Resuming a run that was stopped, bit for bit as if it had not been."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rpat_cli.engine.distributed import ALONE, Ranks
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import check_content
from rpat_cli.recipe.layers import Layer, code_named_in, read_recipe, resolve, with_plugins_in
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.checkpoint import is_saved, load_newest
from rpat_cli.records.metrics import inspect_metrics
from rpat_cli.records.run_folder import RunFolder, open_run
from rpat_cli.records.segments import Segment, in_words, segment_of, segments_in
from rpat_cli.runs.checkpoints import with_absolute_networks
from rpat_cli.runs.inputs import Inputs
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.precision import precision_as_before
from rpat_cli.runs.restore import check_training
from rpat_cli.runs.run_log import also_logging, logging_errors
from rpat_cli.runs.start import begun_with, with_fitted_start
from rpat_cli.runs.target import check_sources, with_located_eval
from rpat_cli.runs.threads import threads_as_before
from rpat_cli.runs.train import Begun, train_session, write_recipe

RESUMABLE_KEYS = {
    "epochs",
    "device",
    "eval",
    "validation",
    "data.root",
    "data.workers",
    "data.download",
    "data.memory_budget_gb",
}
"""The recipe keys that may change when a run is resumed: those that the steps already done do not
depend on."""


def resume_run(
    path: Path,
    *,
    changes: Sequence[Layer] = (),
    stop_after: int | None = None,
    jobs: Jobs = 1,
    listener: Listener | None = None,
    ranks: Ranks = ALONE,
    begun: Begun = lambda folder: None,  # noqa: ARG005
) -> RunFolder:
    """Go on with a run exactly where it stopped. `changes` may set the keys in `RESUMABLE_KEYS`.
    `ranks` and `begun` are as in `train_run`; their number may be another one than before.

    Raises `ConfigError` for any other change, `CheckpointError` if no checkpoint can be read,
    `RunFolderError` if another process is training the run, and otherwise as `train_run` does.
    """
    folder = open_run(path)
    with trusting(files=code_named_in(changes)):
        recipe = with_located_eval(_changed_recipe(folder, changes))
        check_sources(parse_suite(recipe.eval))
    inputs = Inputs.of(recipe, ranks)
    with folder.training(), logging_errors(folder):
        begun(folder)
        listener = also_logging(listener or Listener(), folder)
        state = _last_state(folder, recipe, listener.say)
        _check_images(folder, state or {}, inputs)
        if state is None:
            inputs = with_fitted_start(replace(inputs, start=begun_with(recipe)[1]))
        before = _segments_before(folder, state)
        inputs = precision_as_before(inputs, before, listener.say)
        same_ranks = bool(before) and before[-1].ranks == ranks.size
        threads = before[-1].threads if same_ranks else None
        with threads_as_before(threads, inputs.compute.device, listener.say):
            segments = inputs.segments(state, before)
            if changes or segments != before:
                write_recipe(folder, recipe, segments)
            if len(segments) > 1:
                listener.say("\n".join(["trained in segments:", *in_words(segments)]))
            return train_session(
                inputs,
                folder,
                segments=segments,
                state=state,
                stop_after=stop_after,
                jobs=jobs,
                listener=listener,
            )


def _segments_before(folder: RunFolder, state: Mapping[str, Any] | None) -> list[Segment]:
    """Those of the sessions before; of a version that did not record them, as one."""
    if state is None:
        return []
    known = segments_in(state)
    if known:
        return known
    saved = Layer("the last checkpoint", state["recipe"])
    recipe = resolve([with_plugins_in(saved, folder.path)])
    return [segment_of(recipe.model_dump(mode="json"))]


def _last_state(
    folder: RunFolder, recipe: Recipe, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The content of the newest checkpoint; None if there is none yet."""
    last = folder.checkpoint("last")
    if not is_saved(last):
        say(f"{folder.path} was stopped before its first checkpoint: starting again")
        return None
    needs = ("recipe", "architecture", "model", "training", "best", "epoch")
    state, remark = load_newest(last, needs)
    check_content(state, last)
    check_training(state, last)
    done = state["training"]["epoch"]
    say(remark or f"resuming {folder.path} after epoch {done}")
    for problem in inspect_metrics(folder.metrics, done)[1]:
        say(problem)
    if _rates_differ(recipe, epochs_before=state["recipe"]["epochs"], done=done):
        say(
            f"note: had the run had {recipe.epochs} epochs from the start, the schedule "
            f"{recipe.schedule.name!r} would have set other learning rates in the epochs already "
            "done. To split one training into sessions use --stop-after."
        )
    return state


def _check_images(folder: RunFolder, state: Mapping[str, Any], inputs: Inputs) -> None:
    """Raises `DataError` for a run that was trained on other images so far.

    Checkpoints of earlier versions do not tell.
    """
    before = state.get("images", inputs.images)
    for key, fingerprint in inputs.images.items():
        if before.get(key) != fingerprint:
            section = inputs.recipe.data
            source = ", ".join(section.extra.paths) if key == "data.extra" else section.root
            raise DataError(
                f"{folder.path} was trained on other images so far than those that are at {source} "
                "now: their names, number, contents, or labels differ. Put the former ones back, "
                f"or train a new run on these: rpat train --config {folder.recipe}"
            )


def _rates_differ(recipe: Recipe, *, epochs_before: int, done: int) -> bool:
    """Whether the recipe's number of epochs, set from the start, would have given the first `done`
    epochs other learning rates than `epochs_before` did."""
    schedule = recipe.schedule.build(SCHEDULES)
    # The middle of each epoch will do: a schedule that looks at the end differs everywhere.
    middles = [epoch + 0.5 for epoch in range(done)]
    return any(
        schedule(middle, epochs_before) != schedule(middle, recipe.epochs) for middle in middles
    )


def _changed_recipe(folder: RunFolder, changes: Sequence[Layer]) -> Recipe:
    """The run's recipe with the changes. Raises `ConfigError` for those that are not allowed."""
    saved = read_recipe(folder.recipe)
    # A sweep gives the recipe of the trial again, which may name its networks by relative paths.
    before, after = (
        with_absolute_networks(resolve(layers)) for layers in (saved, [*saved, *changes])
    )
    forbidden = []
    for key in _differing(before.model_dump(), after.model_dump()):
        section = key.split(".")[0]
        if key not in RESUMABLE_KEYS and section not in RESUMABLE_KEYS:
            forbidden.append(key)
    if forbidden:
        message = (
            "cannot be changed when resuming: the run would follow neither the old recipe nor the "
            "new one."
        )
        allowed = ", ".join(sorted(RESUMABLE_KEYS))
        advice = (
            f"May be changed: {allowed}. For anything else train a new run: "
            f"rpat train --config {folder.recipe}"
        )
        raise ConfigError(
            *(Problem(key, message, "--resume") for key in dict.fromkeys(forbidden)),
            advice,
            title="this run cannot be resumed with another recipe",
        )
    return after


def _differing(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ, sorted."""
    keys: list[str] = []
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            keys += _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            keys.append(f"{prefix}{key}")
    return sorted(keys)
