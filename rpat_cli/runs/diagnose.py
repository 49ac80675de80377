"""Diagnostics of a target that is open already: prepared before the attacks, measured after them,
and added to the evaluation's file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from rpat_cli.attacks.side_effects import given_copies
from rpat_cli.data.choice import Limit
from rpat_cli.data.reading import Images
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic, Result, Subject
from rpat_cli.diagnostics.base import Measure
from rpat_cli.errors import ConfigError, Mistakes, Problem, UserCodeError
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.records import eval_file
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.target import OpenedTarget
from rpat_cli.signals import stoppable
from rpat_cli.user_code import ascribed, calling, place_of, where_defined

Wanted: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Names of `DIAGNOSTICS`, each with the settings that its options give."""


def prepare(wanted: Wanted, opened: OpenedTarget, limit: Limit | None) -> dict[str, Measure]:
    """The functions that measure, by name: before hours of attacks, what would fail after them.

    Raises `ConfigError` for a name that is not in `DIAGNOSTICS` or lacks a setting, and what the
    diagnostics' own `prepare` raises.
    """
    check_wanted(wanted)
    # In the order of the table, which is that of the report.
    names = [name for name in DIAGNOSTICS if name in wanted]
    prepared = {}
    for name in names:
        with calling(DIAGNOSTICS[name].prepare, "prepare(data, limit, **settings)"):
            prepared[name] = DIAGNOSTICS[name].prepared(opened.data, limit, wanted[name])
    return prepared


def check_wanted(wanted: Wanted) -> None:
    """Raises `ConfigError` for every name that is not in `DIAGNOSTICS` or lacks a setting."""
    mistakes = Mistakes()
    for name, settings in wanted.items():
        with mistakes.gathered():
            _check(name, DIAGNOSTICS[name], settings)
    mistakes.check()


def _check(name: str, diagnostic: Diagnostic, settings: Mapping[str, Any]) -> None:
    first = diagnostic.options[0] if diagnostic.options else None
    if first and first.setting and first.setting not in settings:
        given = [option.flag for option in diagnostic.options if option.setting in settings]
        where = given[0] if given else f"--diagnostic {name}"
        raise ConfigError(Problem("", f"needs {first.flag} {first.metavar}.", where))


def diagnose(
    prepared: Mapping[str, Measure],
    opened: OpenedTarget,
    file: Path,
    *,
    limit: Limit | None,
    attacks: Sequence[AttackSpec],
    sources: Mapping[str, nn.Module],
    listener: Listener,
) -> dict[str, Result]:
    """Measure what was prepared, on the images that the evaluation in `file` measured, and add each
    result to that file as soon as it is there.

    Until the last one is, the file lists those that are pending. `attacks` are those of the
    evaluation, `sources` the models that they start from, on the device.
    Raises `Interrupted` on Ctrl-C and termination signals.
    """
    if not prepared:
        return {}
    names = list(prepared)
    eval_file.add(file, {}, names)
    images = opened.test_images(limit)
    subject = Subject(
        opened.model,
        Images(images),
        images.labels,
        threat=opened.threat,
        device=opened.compute.device,
        seed=opened.recipe.seed,
        sources=sources,
        say=listener.say,
        attacks=attacks,
    )
    results: dict[str, Result] = {}
    with stoppable(
        f"stopped; the results of the attacks are in {file}. Give the same command again for the "
        "diagnostics that are left."
    ):
        for done, name in enumerate(names, 1):
            listener.say(f"diagnostic: {name}")
            results[name] = _measured(name, prepared[name], subject)
            eval_file.add(file, {name: results[name].to_dict()}, names[done:])
    return results


def _measured(name: str, measure: Measure, subject: Subject) -> Result:
    """Raises `UserCodeError` for a diagnostic of a user's that returns something else than a
    result."""
    with ascribed(subject.model), given_copies(subject.model), calling(measure, "measure(subject)"):
        result = measure(subject)
    missing = [each for each in ("failed", "to_dict", "section") if not hasattr(result, each)]
    if missing:
        raise UserCodeError(
            f"{where_defined(measure)}: the diagnostic {name!r} returned {type(result).__name__}, "
            f"which has no {' and no '.join(missing)}. A result inherits from "
            "rpat_cli.diagnostics.Result and has to_dict() and section()."
        )
    try:
        json.dumps(result.to_dict())
    except (TypeError, ValueError) as error:
        if place_of(error) is not None:
            raise
        raise UserCodeError(
            f"{where_defined(result)}: to_dict() of the diagnostic {name!r} must return plain "
            f"builtins, ready for JSON: {error}."
        ) from error
    return result


def one_per_source(
    specs: Sequence[AttackSpec], sources: Mapping[str, SavedModel]
) -> dict[str, SavedModel]:
    """Of several transfer attacks on one model, the first: the verdict makes its own images on
    it."""
    by_model: dict[str, str] = {}
    for spec in specs:
        if spec.label in sources:
            by_model.setdefault(str(spec.settings["source"]), spec.label)
    return {label: sources[label] for label in by_model.values()}
