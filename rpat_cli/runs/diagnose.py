"""What `rpat eval` adds to an evaluation on request: a closer look at the model, entered in the
evaluation's file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from rich.table import Table
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.corrupted import CorruptedImages, open_corrupted
from rpat_cli.data.splits import limited_choice
from rpat_cli.diagnostics.corruptions import Baseline, measure_corruptions
from rpat_cli.diagnostics.eps_curve import trace
from rpat_cli.diagnostics.loss_surface import survey
from rpat_cli.diagnostics.perception import perceive
from rpat_cli.diagnostics.verdict.verdict import gather, judge
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.recipe.layers import Layer
from rpat_cli.records.run_folder import write_whole
from rpat_cli.reports.analyses import (
    corruption_table,
    eps_table,
    perception_table,
    surface_table,
    verdict_table,
)
from rpat_cli.reports.report import write_report
from rpat_cli.runs.build import build_threat
from rpat_cli.runs.compare import evaluations_in
from rpat_cli.runs.evaluate import LOOKS_LEFT, limited, load_sources, open_target
from rpat_cli.runs.listener import Listener
from rpat_cli.signals import stoppable


class Result(Protocol):
    """What an analysis found."""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        ...


@dataclass(frozen=True)
class Found:
    """A result, and how it is shown. `failed`: whoever asked should not trust the evaluation."""

    result: Result
    show: Callable[[Any], Table]
    failed: bool = False

    def table(self) -> Table:
        return self.show(self.result)


@dataclass(frozen=True)
class Subject:
    """What is looked at: a model in eval mode on `device`, images `x` (N, C, H, W) in [0, 1] and
    labels `y` (N,)."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    device: torch.device
    seed: int

    def with_at_most(self, images: int) -> "Subject":
        """The same with a fixed choice of the images, each class by its share."""
        chosen = limited_choice(self.y, images)
        return replace(self, x=self.x[chosen], y=self.y[chosen])


def find_verdict(s: Subject, *, sources: Mapping[str, nn.Module] = MappingProxyType({})) -> Found:
    """`sources`: other models on the device, whose adversarial images are tried too."""
    verdict = judge(
        gather(s.model, s.x, s.y, s.threat, device=s.device, seed=s.seed, sources=sources)
    )
    return Found(verdict, verdict_table, failed=verdict.level == "FAIL")


def find_perception(s: Subject) -> Found:
    return Found(
        perceive(s.model, s.x, s.y, s.threat, device=s.device, seed=s.seed), perception_table
    )


def find_eps_curve(s: Subject, *, attack: Literal["pgd", "fmn"] = "pgd") -> Found:
    s = s.with_at_most(CURVE_IMAGES)
    return Found(
        trace(s.model, s.x, s.y, s.threat, attack=attack, device=s.device, seed=s.seed), eps_table
    )


def find_loss_surface(s: Subject) -> Found:
    s = s.with_at_most(SURFACE_IMAGES)
    return Found(survey(s.model, s.x, s.y, s.threat, device=s.device, seed=s.seed), surface_table)


Analysis = Callable[[Subject], Found]

ANALYSES: Mapping[str, Analysis] = {
    "verdict": find_verdict,
    "perception": find_perception,
    "eps_curve": find_eps_curve,
    "eps_curve_fmn": partial(find_eps_curve, attack="fmn"),
    "loss_surface": find_loss_surface,
}
"""Key in the evaluation's JSON -> how it is found."""

CURVE_IMAGES, SURFACE_IMAGES = 1000, 64
"""At most so many images, each class by its share."""


CORRUPTIONS = "corruptions"
"""Key of the analysis that needs files of its own."""


def prepare_corruptions(
    folder: Path,
    target: Path,
    *,
    baseline: Path | None = None,
    limit: int | None = None,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    listener: Listener | None = None,
) -> Analysis:
    """The errors on corrupted images, as an analysis. What is wrong with files and baseline comes
    out here already.

    `baseline` is an evaluation of ours that has corruptions in it, or a run, of which the newest
    such is taken. Raises `DataError` and `RunFolderError`, and what opening the target raises.
    """
    _, _, data = open_target(target, checkpoint, changes)
    labels, classes = data.test.labels, data.classes
    images = open_corrupted(
        folder, shape=data.shape, test_labels=labels, classes=classes, limit=limit
    )
    other = _read_baseline(baseline) if baseline else None
    if other:
        other.check(images)
    say = (listener or Listener()).say
    return partial(find_corruptions, images=images, baseline=other, say=say)


def find_corruptions(
    s: Subject, *, images: CorruptedImages, baseline: Baseline | None, say: Callable[[str], None]
) -> Found:
    found = measure_corruptions(
        s.model, images, baseline=baseline, device=s.device, seed=s.seed, say=say
    )
    return Found(found, corruption_table)


def _read_baseline(path: Path) -> Baseline:
    """Of a file, or of the newest evaluation of a run that has corruptions in it."""
    for file in evaluations_in(path) if path.is_dir() else [path]:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing, or nothing of ours
            continue
        if isinstance(record, dict) and CORRUPTIONS in record:
            return Baseline.from_dict(str(path), record[CORRUPTIONS])
    raise RunFolderError(
        f"{path} holds no errors on corrupted images to compare with. Give the evaluation's "
        "JSON, or the run, of a "
        "model that was measured with rpat eval --corruptions."
    )


def check_wanted(wanted: Sequence[str]) -> None:
    """Say before hours of attacks what an analysis would say after them. Raises
    `MissingExtraError`."""
    if "eps_curve_fmn" in wanted:
        ATTACKS["fmn"](Threat("Linf", 1.0))


def transfers_in(record: Mapping[str, Any]) -> list[AttackSpec]:
    """The transfer attacks of an evaluation as its JSON has them; of several on one model, the
    first."""
    by_source = {
        result["settings"]["source"]: AttackSpec("transfer", result["label"], result["settings"])
        for result in reversed(record["results"])
        if result["name"] == "transfer"
    }
    return list(by_source.values())


def analyse(
    wanted: Sequence[str],
    target: Path,
    file: Path,
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    limit: int | None = None,
    prepared: Mapping[str, Analysis] | None = None,
    listener: Listener | None = None,
) -> list[Found]:
    """Run the `wanted` of `ANALYSES` on what the evaluation in `file` measured, and enter the
    results in it.

    `target`, `checkpoint`, `changes` and `limit` are those of the evaluation; `prepared` are
    further analyses, all of which are run. Each result is on disk as soon as it is there; a run's
    report is written anew. Raises what opening the target raises, and `Interrupted` on Ctrl-C and
    termination signals.
    """
    analyses = {name: ANALYSES[name] for name in wanted} | dict(prepared or {})
    if not analyses:
        return []
    listener = listener or Listener()
    _enter(file, {}, list(analyses))
    saved, recipe, data = open_target(target, checkpoint, changes)
    compute = resolve_compute(recipe.device, "fp32")
    model = compute.place(saved.model)
    if "verdict" in analyses:
        specs = transfers_in(json.loads(file.read_text(encoding="utf-8")))
        sources = load_sources(specs, saved.architecture, recipe)
        placed = {label: compute.place(source.model) for label, source in sources.items()}
        analyses["verdict"] = partial(find_verdict, sources=placed)
    images = data.test if limit is None else limited(data.test, limit)
    subject = Subject(model, *images.tensors(), build_threat(recipe), compute.device, recipe.seed)
    found = []
    with stoppable(
        f"stopped; what the attacks found is in {file}. Give the same command again for the "
        "closer looks."
    ):
        for number, (name, analysis) in enumerate(analyses.items(), 1):
            listener.say(f"looking closer: {name}")
            found.append(analysis(subject))
            _enter(file, {name: found[-1].result.to_dict()}, list(analyses)[number:])
    if saved.folder.metrics.exists():
        write_report(saved.folder)
    return found


def _enter(file: Path, found: Mapping[str, Any], left: Sequence[str]) -> None:
    """Add what was `found` to an evaluation's file, and what is `left` to look at: it is not
    measured anew for that."""
    record = json.loads(file.read_text(encoding="utf-8")) | found
    record.pop(LOOKS_LEFT, None)
    write_whole(file, json.dumps(record | ({LOOKS_LEFT: list(left)} if left else {}), indent=1))
