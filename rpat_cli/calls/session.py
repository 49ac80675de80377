"""A training and an evaluation that are called from Python: the caller's process comes out as it
went in, and only code that the caller named runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rpat_cli.calls.options import PathLike
from rpat_cli.calls.run import open_run
from rpat_cli.data.in_memory import Given, providing
from rpat_cli.evaluation.suite import Overrides
from rpat_cli.loading.stand_ins import read_surrogates, surrogate_files
from rpat_cli.loading.start_name import with_networks_named, with_start_named
from rpat_cli.recipe.layers import Layer, code_named_in, read_all, resolve
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.recipe.trust import code_of_target, model_files, trusting
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.caller import as_suite, called
from rpat_cli.runs.evaluate import EvalOptions, Measured, measure_run
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.target import Target
from rpat_cli.runs.train import train_run
from rpat_cli.tracking import chosen


def training(
    given: Sequence[Layer],
    images: Given | None,
    listener: Listener,
    *,
    recipe: str | None = None,
    configs: Sequence[Path] = (),
    out: Path | None = None,
    resume: PathLike | None = None,
    trust: bool = False,
    track: str | Sequence[str] | None = (),
    **session: Any,
) -> RunFolder:
    """Train a new run, or with `resume` the rest of an old one. `given` are the layers of the call,
    which come over the files; `session` goes to `train_run`.

    Raises `RpatError`s.
    """
    named = code_named_in(given)
    with called("train"), providing(images), trusting(everything=trust, files=named):
        layers = with_start_named([*read_all(recipe, configs), *given])
        # Plugins come first: they may add a tracker.
        new = with_networks_named(resolve(layers)) if resume is None else None
        load_plugins(_plugins_of(given))
        listener = replace(listener, trackers=chosen(track, "train(track=...)"))
        if new is not None:
            return train_run(new, out=out, listener=listener, **session)
        assert resume is not None
        path = open_run(resume).path
        return resume_run(path, changes=layers, listener=listener, **session)


def _plugins_of(given: Sequence[Layer]) -> list[tuple[str, str]]:
    return [(file, each.source) for each in given for file in each.values.get("plugins", ())]


def evaluation(
    target: Target,
    attack: str | Sequence[str],
    given: Sequence[Layer],
    images: Given | None,
    listener: Listener,
    how: Mapping[str, Any],
    *,
    checkpoint: str = "best",
    overrides: Overrides | None = None,
    diagnostics: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    surrogates: Mapping[str, Any] = MappingProxyType({}),
    plugins: Sequence[str] = (),
    trust: bool = False,
    track: str | Sequence[str] | None = (),
) -> Measured:
    """Evaluate a target under `attack`. `given` are the layers of the call, over the recipe of the
    target; `how` are fields of `EvalOptions`, `surrogates` what is made into one of them.
    `plugins` are among the layers, and loaded first: what they add may be named in `attack`. Raises
    `RpatError`s."""
    attacks = as_suite(attack, "evaluate()")
    files = [*code_named_in(given), *model_files(attacks), *surrogate_files(surrogates)]
    files += code_of_target(target) if isinstance(target, Path) else []
    with called("evaluate"), providing(images), trusting(everything=trust, files=files):
        load_plugins((file, "evaluate(plugin=...)") for file in plugins)
        listener = replace(listener, trackers=chosen(track, "evaluate(track=...)"))
        return measure_run(
            target,
            read_suite(attacks, overrides, source="evaluate()"),
            diagnostics=diagnostics,
            checkpoint=checkpoint,
            changes=given,
            options=EvalOptions(surrogates=read_surrogates(surrogates, "evaluate()"), **how),
            listener=listener,
        )
