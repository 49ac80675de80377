"""From the folders of the experiment's sweeps to its raw tables, and what it runs there."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import MIXES, Perception, analyze_walks
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.audit import Audit
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.records import eval_file
from rpat_cli.records.metrics import EpochRecord, append_metrics
from rpat_cli.sweep.expand import Plan, plan_sweep
from rpat_cli.sweep.sweep_file import find_sweep
from rpat_cli.sweep.table import build_table, to_json

Scripts = dict[str, ModuleType]

METRIC = "apgd-t-20@targets=3"


@cache
def plan() -> Plan:
    return plan_sweep(find_sweep("claim-fashion-mnist"))


def write_folder(folder: Path) -> Path:
    """As `rpat sweep` writes it, with one trial that has finished, whose run folder it returns, and
    the next one failed. Its best epoch is the last but one of the plain weights, the last of the
    averaged ones."""
    accuracy = {"clean": 0.8, METRIC: 0.6}
    of_all = dict.fromkeys(("best", "last", "best_wa", "last_wa"), accuracy)
    first, second = plan().trials[:2]
    table = build_table(plan(), {first.name: of_all}, {second.name: "killed"})
    (folder / "table.json").write_text(to_json(table))
    run = folder / "trials" / first.name / "run"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(to_yaml(first.recipe))
    for epoch, (plain, averaged) in enumerate([(0.1, 0.1)] * 6 + [(0.6, 0.5), (0.5, 0.6)], 1):
        validation = {"robust_acc": plain, "robust_acc_wa": averaged}
        record = EpochRecord(epoch, 0.1, {"loss": 1.0}, 10.0, 200.0, validation=validation)
        append_metrics(run / "metrics.jsonl", record)
    return run


def test_a_sweeps_folder_becomes_rows(scripts: Scripts, tmp_path: Path) -> None:
    first = write_folder(tmp_path).parent.name
    found = scripts["claim_data"].collect(tmp_path)
    assert [row.checkpoint for row in found[:5]] == ["best", "last", "best_wa", "last_wa", ""]
    figures = {(row.trial, row.clean, row.robust, row.seconds) for row in found[:4]}
    assert figures == {(first, 0.8, 0.6, 80.0)}  # eight epochs of ten seconds
    assert {(row.planned, row.hours, row.ended) for row in found} == {(8, 0.022, 0)}
    assert {row.ended for row in scripts["claim_data"].collect(tmp_path, ended=True)} == {1}
    assert (found[4].variant, found[4].seed, found[4].failed) == ("pgd + ra", 0, True)
    # Eight variants have ended nowhere, so seed 0 is no complete block.
    assert [row.pending for row in found] == [False] * 5 + [True] * 8
    names = {(row.variant, row.baseline) for row in found if row.variant.startswith("rebat")}
    assert names == {("rebat", ""), ("rebat + ra", "rebat")}
    scripts["raw_tables"].write_csv(found, tmp_path / "raw.csv")
    kept = scripts["raw_tables"].read_csv(tmp_path / "raw.csv", scripts["claim_data"].Row)
    assert kept == found
    assert scripts["claim_data"].complete_blocks(found) == []


def test_blocks_of_several_machines_are_one_table(scripts: Scripts) -> None:
    """Seed 1 broke off on the first machine; seed 0 was made on both, and counts as on that."""
    row, parts = scripts["claim_data"].Row, scripts["claim_parts"]
    both = ("pgd", "pgd + ra")

    def made(variants: tuple[str, ...], seed: int, robust: float) -> list[Any]:
        return [
            row(variant, "", seed, f"{variant} {seed}", "best", METRIC, robust=robust)
            for variant in variants
        ]

    def machine(rows: list[Any], planned: int, hours: float, ended: int = 0) -> list[Any]:
        return [replace(each, planned=planned, hours=hours, ended=ended) for each in rows]

    first = machine([*made(both, 0, 0.6), *made(both[:1], 1, 0.6)], 8, 1.5)
    second = machine([*made(both, 0, 0.5), *made(both, 1, 0.5), *made(both[:1], 2, 0.5)], 2, 2.25)
    found = parts.combined([first, second])
    assert {(each.seed, each.variant, each.robust) for each in found} == {
        *((0, name, 0.6) for name in both),
        *((1, name, 0.5) for name in both),
        (2, "pgd", 0.5),
    }
    assert len(found) == 5
    assert {(each.planned, each.hours, each.ended) for each in found} == {(8, 3.75, 0)}
    assert parts.seeds_of(scripts["claim_data"].complete_blocks(found)) == [0, 1]
    over = parts.combined([first, machine(second, 2, 2.25, ended=1)])
    assert parts.over(over)
    assert not parts.over(found)
    waiting = row("pgd + ra", "", -1, "", scripts["claim_data"].PENDING, METRIC, planned=8)
    alone = machine(made(both[:1], 0, 0.6), 8, 1.0)
    assert parts.combined([[*alone, waiting]]) == [*alone, waiting]
    nobody = parts.combined(
        [[*alone, waiting], [*machine(made(both[:1], 1, 0.6), 1, 1.0), waiting]]
    )
    assert [each.pending for each in nobody] == [False, False, True]
    assert not any(each.pending for each in parts.combined([[*alone, waiting], second]))
    # A table that lacks a variant has no complete block, of which the other one's would be a part.
    split = parts.combined([alone, machine(made(both, 0, 0.5), 8, 1.0)])
    assert {each.robust for each in split} == {0.5}
    four = [machine(made(both, seed, 0.5), 2, 1.0) for seed in range(4)]
    with pytest.raises(ConfigError, match=r"4 blocks together, and none .* more than 2 seeds"):
        parts.combined([[*four[0], *four[1]], [*four[2], *four[3]]])
    assert parts.part_of("claim-fashion-mnist.second") == "claim-fashion-mnist"


THREAT = Threat("Linf", 0.1)

SETTINGS: dict[str, dict[str, Any]] = {METRIC: {"steps": 20, "targets": 3}, "best": {"attacks": {}}}


def an_evaluation(
    right: dict[str, int], n: int, limit: int | str | None, threat: Threat = THREAT
) -> Evaluation:
    """Of `n` images, all right without an attack and the first `right[label]` under it."""
    y, results = torch.arange(n) % 10, []
    for label, count in right.items():
        flags = torch.arange(n) < count
        predicted = torch.where(flags, y, (y + 1) % 10)
        broken_by = torch.where(flags, -1, 0)
        distance = torch.where(flags, torch.nan, 0.1)
        results.append(
            AttackResult(
                label, label, threat, SETTINGS[label], flags, predicted, broken_by, distance
            )
        )
    return Evaluation(threat, y, y, tuple(results), 0, 10, limit, classes=10)


IMAGES, ALL = 40, 100

Measure = Callable[..., None]


def perception_of(threat: Threat = THREAT, steps: int = 20, images: int = IMAGES) -> Perception:
    logits = torch.randn(len(MIXES), images, 10, generator=torch.Generator().manual_seed(0))
    walks = {"adversarial": logits, "random": logits}
    return analyze_walks(walks, logits[0].argmax(1), threat, steps)


@pytest.fixture
def trial(scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """A finished trial with the sweep's own evaluation of its best epoch, and a function that adds
    an evaluation to it. Unless something else is said, it's the one that the plan wants."""
    monkeypatch.setattr(scripts["claim_data"], "LIMIT", IMAGES)
    evals = write_folder(tmp_path) / "evals"
    written = []

    def measured(
        right: dict[str, int] | None = None,
        n: int = IMAGES,
        limit: int | str | None = IMAGES,
        *,
        change: Callable[[Evaluation], Evaluation] = lambda evaluation: evaluation,
        threat: Threat = THREAT,
        data: tuple[str, str] = ("fashion-mnist", "ab"),
        **more: Any,
    ) -> None:
        written.append(1)
        content = change(an_evaluation(right or {METRIC: 24, "best": 20}, n, limit, threat))
        record = {
            "created": f"2026-11-22T12:00:{len(written):02}+00:00",
            "environment": {"rpat": "0.1.0", "torch": "2.14"},
            "device": "cpu",
            "checkpoint": "best",
            "epoch": 7,
            "data": dict(zip(("name", "fingerprint"), data, strict=True)),
        }
        eval_file.write_new(evals, "best", record | content.to_dict() | more)

    measured({METRIC: 60}, ALL, None)
    return measured


def columns(scripts: Scripts, folder: Path, *names: str) -> tuple[float | None, ...]:
    [row] = [row for row in scripts["claim_data"].collect(folder) if row.checkpoint == "best"]
    return tuple(getattr(row, name) for name in names)


def settings(label: str, **other: Any) -> Callable[[Evaluation], Evaluation]:
    """The same evaluation, by an attack with other settings under the same label."""

    def change(evaluation: Evaluation) -> Evaluation:
        results = [
            replace(each, settings={**each.settings, **other}) if each.label == label else each
            for each in evaluation.results
        ]
        return replace(evaluation, results=tuple(results))

    return change


OTHERS: dict[str, dict[str, Any]] = {
    "on all images": {"n": ALL, "limit": None},
    "on fewer": {"n": 20, "limit": 20, "right": {METRIC: 12, "best": 9}},
    "on the first ones": {"limit": f"first:{IMAGES}"},
    "without the metric": {"right": {"best": 20}},
    "without best": {"right": {METRIC: 24}},
    "under another threat": {"threat": Threat("Linf", 0.05)},
    "on other data": {"data": ("mnist", "cd")},
    "on other images of that name": {"data": ("fashion-mnist", "cd")},
    "of another checkpoint": {"checkpoint": "best_wa", "epoch": 8},
    "of weights that were replaced": {"epoch": 6},
    "with other random numbers": {"change": lambda evaluation: replace(evaluation, seed=1)},
    "by a search in bfloat16": {"change": settings("best", search="bfloat16")},
    "by a metric of more steps": {"change": settings(METRIC, steps=50)},
    "by another version": {"environment": {"rpat": "0.2.0", "torch": "2.14"}},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_no_other_evaluation_becomes_a_column(
    scripts: Scripts, tmp_path: Path, trial: Measure, kind: str
) -> None:
    """Neither where it is alone, nor as the newer one."""
    names = ("robust_1000", "best_1000", "bend", "unevenness")
    other = {"perception": perception_of().to_dict(), **OTHERS[kind]}
    trial(**other)
    assert columns(scripts, tmp_path, *names) == (None,) * 4
    trial({METRIC: 22, "best": 18}, perception=perception_of().to_dict())
    known = columns(scripts, tmp_path, *names)
    smooth = scripts["claim_data"].smoothness(perception_of())
    assert known == (0.55, 0.45, smooth["bend"], smooth["unevenness"])
    trial(**other)
    assert columns(scripts, tmp_path, *names) == known


def test_the_newest_of_the_planned_evaluations_counts(
    scripts: Scripts, tmp_path: Path, trial: Measure
) -> None:
    for wrong in (
        perception_of(Threat("Linf", 0.05)),
        perception_of(steps=10),
        perception_of(images=20),
    ):
        trial(perception=wrong.to_dict())
        found = columns(scripts, tmp_path, "robust_1000", "best_1000", "bend")
        assert found == (0.6, 0.5, None)
    trial({METRIC: 24, "best": 18}, perception=perception_of().to_dict())
    assert columns(scripts, tmp_path, "best_1000") == (0.45,)
    trial({METRIC: 24, "best": 16}, limit=None)  # as of a test set that has no more images
    assert columns(scripts, tmp_path, "best_1000") == (0.4,)


def test_an_audit_of_all_images_becomes_columns(
    scripts: Scripts, tmp_path: Path, trial: Measure
) -> None:
    def audited(width: float) -> Callable[[Evaluation], Evaluation]:
        found = Audit(width, 0.95, ALL, 50, 20, 2, 3, 0, tuple(range(20)))

        def change(evaluation: Evaluation) -> Evaluation:
            last = replace(evaluation.results[-1], name="audit", label="audit", audit=found)
            last = replace(last, correct_after=torch.arange(ALL) < 48)
            return replace(evaluation, results=(*evaluation.results, last))

        return change

    names = ("audited", "audit_gap", "audit_sampled", "audit_broken")
    right = {"best": 50}
    trial(right, ALL, None, change=audited(2))
    trial({"best": 20}, IMAGES, IMAGES)
    assert columns(scripts, tmp_path, *names) == (None,) * 4
    trial(right, ALL, None, change=audited(1))
    assert columns(scripts, tmp_path, *names) == (0.48, 0.03, 20, 2)
    shown = scripts["claim_page"]._audits(scripts["claim_data"].collect(tmp_path)[:1])
    assert "| pgd, seed 0 | 60.00 | 48.00 | 45.00 | 2 of 20 |" in shown


def test_what_is_missing_is_measured_on_the_primary_checkpoints(
    scripts: Scripts, tmp_path: Path, trial: Measure
) -> None:
    row, missing = scripts["claim_data"].Row, scripts["claim_runs"].missing
    rows = scripts["claim_data"].collect(tmp_path)
    rows += [row("rebat", "", 0, "b", name, METRIC, 0.8, 0.6) for name in ("best", "best_wa")]
    later = [replace(rows[0], seed=1), *rows]  # as of a table that goes by method
    assert missing(later, audits=False)[-1].title == "pgd, seed 1"
    titles = ["pgd, seed 0", "rebat, seed 0", "pgd, seed 0, the audit"]
    assert [task.title for task in missing(rows, audits=True)] == titles
    assert missing(rows, audits=True)[1].row.checkpoint == "best_wa"
    trial(perception=perception_of().to_dict())
    rows = scripts["claim_data"].collect(tmp_path)
    assert [task.title for task in missing(rows, audits=True)] == titles[2:]
    assert missing(rows, audits=False) == []


def test_logits_that_do_not_change_are_not_measured_again(scripts: Scripts) -> None:
    """Those of a collapsed network: its unevenness is 0 / 0."""
    logits = torch.zeros(len(MIXES), IMAGES, 10)
    walks = {"adversarial": logits, "random": logits}
    flat = analyze_walks(walks, torch.zeros(IMAGES, dtype=torch.long), THREAT, 20)
    found = scripts["claim_data"].smoothness(flat)
    assert found == {"bend": 0}
    row = scripts["claim_data"].Row("pgd", "", 0, "a", "best", METRIC, 0.1, 0.1)
    measured = replace(row, robust_1000=0.1, best_1000=0.1, **found)
    assert scripts["claim_runs"].missing([measured], audits=False) == []
