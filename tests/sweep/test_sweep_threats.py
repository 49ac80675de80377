"""Several threats in a sweep: the worst case under each and the union are metrics, in every format
and on the page."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.union import ThreatUnion
from rpat_cli.reports.unions import CheckpointUnion
from rpat_cli.sweep.expand import Plan, Trial, plan_sweep
from rpat_cli.sweep.folder import Results, TrialFolder
from rpat_cli.sweep.page import best_of, robust_metric, to_html, to_svg
from rpat_cli.sweep.table import build_table, to_csv, to_markdown

LINF, L2 = Threat("Linf", 8 / 255), Threat("L2", 0.5)
SWEEP = """
recipe: {epochs: 1, eval_threats: ["Linf:8/255", "L2:0.5"]}
grid: {ra: [false, true]}
eval: [clean, autoattack]
"""
RIGHT = {
    "no ra": ([1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0]),  # each better, alone
    "ra": ([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]),
}
"""Which of eight images are right under each threat: the union is 2 / 8, and 3 / 8."""


def report_of(trial: Trial) -> dict[str, Any]:
    """What `rpat train` leaves, as far as a sweep reads it."""
    linf, l2 = (torch.tensor(flags) == 1 for flags in RIGHT[trial.label])
    clean = Accuracy(7, 8)
    parts = (Accuracy.of(linf), Accuracy.of(l2))
    union = ThreatUnion((LINF, L2), parts, clean, linf & l2)
    results = [{"label": "clean", "threat": None, "acc": clean.value}]
    for threat, part in zip((LINF, L2), parts, strict=True):
        shown = {"norm": threat.norm, "eps": threat.eps}
        results.append({"label": "autoattack", "threat": shown, "acc": part.value})
    names = ("best", "last")
    return {
        "recipe": trial.recipe.model_dump(mode="json"),
        "training": {"epochs": 1},
        "results": [{**each, "checkpoint": name} for name in names for each in results],
        "unions": [CheckpointUnion(name, union).to_dict() for name in names],
    }


def finished(plan: Plan, path: Path) -> dict[str, Results]:
    found = {}
    for trial in plan.trials:
        folder = TrialFolder(trial, path / trial.name)
        folder.run.path.mkdir(parents=True)
        report = report_of(trial)
        folder.run.report.write_text(json.dumps({**report, "unions": []}))
        assert folder.results() is None  # the threats are still to be measured
        folder.run.report.write_text(json.dumps(report))
        found[trial.name] = folder.results() or {}
    return found


def test_each_threat_and_the_union_are_columns_and_the_union_decides(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = plan_sweep(write(SWEEP))
    table = build_table(plan, finished(plan, tmp_path), {})
    assert table.metrics == (
        *("clean", "autoattack", "Linf:8/255", "L2:0.5", "union"),
        *("Mean", "NRR"),
    )
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    means = {
        (row["variant"], row["metric"]): float(row["mean"])
        for row in rows
        if row["checkpoint"] == "best"
    }
    assert means["no ra", "Linf:8/255"] == means["no ra", "autoattack"] == 3 / 8
    assert means["no ra", "L2:0.5"] == 5 / 8
    assert means["no ra", "union"] == 2 / 8
    assert means["ra", "union"] == 3 / 8
    assert "| 25.00 |" in to_markdown(table)
    # What is best is best under all threats, though it is no better under the first.
    assert robust_metric(table) == "union"
    best = best_of(table, "union")
    assert best is not None
    assert (best.row.label, best.stat.mean) == ("ra", 3 / 8)
    page = to_html(table, tmp_path, to_svg(table))
    assert "highest under union" in page
    assert '<th scope="col">L2:0.5</th>' in page
