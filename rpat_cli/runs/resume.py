"""Resuming a run that was stopped, bit for bit as if it had not been."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import Layer, code_named_in, read_recipe, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.checkpoint import load_newest
from rpat_cli.records.run_folder import RunFolder, open_run
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.target import check_sources
from rpat_cli.runs.train import Inputs, train_session, write_recipe

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
) -> RunFolder:
    """Go on with a run exactly where it stopped. `changes` may set the keys in `RESUMABLE_KEYS`.

    Raises `ConfigError` for any other change, `CheckpointError` if no checkpoint can be read,
    `RunFolderError` if another process is training the run, and otherwise as `train_run` does.
    """
    folder = open_run(path)
    with trusting(files=code_named_in(changes)):
        recipe = _changed_recipe(folder, changes)
        check_sources(parse_suite(recipe.eval))
    listener = listener or Listener()
    inputs = Inputs.of(recipe)
    with folder.training():
        state = _last_state(folder, recipe, listener)
        if changes:
            write_recipe(folder, recipe)
        return train_session(
            inputs, folder, state=state, stop_after=stop_after, jobs=jobs, listener=listener
        )


def _last_state(folder: RunFolder, recipe: Recipe, listener: Listener) -> dict[str, Any] | None:
    """The content of the newest checkpoint; None if there is none yet."""
    last = folder.checkpoint("last")
    if not last.exists() and not folder.checkpoint("last.prev").exists():
        listener.say(f"{folder.path} was stopped before its first checkpoint: starting again")
        return None
    state, remark = load_newest(last)
    done = state["training"]["epoch"]
    listener.say(remark or f"resuming {folder.path} after epoch {done}")
    if _rates_differ(recipe, epochs_before=state["recipe"]["epochs"], done=done):
        listener.say(
            f"note: had the run had {recipe.epochs} epochs from the start, the schedule "
            f"{recipe.schedule.name!r} would have set other learning rates in the epochs already "
            "done. To split one training into sessions use --stop-after."
        )
    return state


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
    before, after = resolve(saved), resolve([*saved, *changes])
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
            *(Problem(key, message, "--resume") for key in forbidden),
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
