"""What a sweep has cost: known sums, over trials done, stopped early, damaged."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_sweep_page import Page, row, table

from rpat_cli.records.run_folder import RunFolder
from rpat_cli.sweep.cost import cost_of, total_cost
from rpat_cli.sweep.page import to_html, to_svg


def a_trial(path: Path, seconds: float, ranks: object, report: object = None) -> RunFolder:
    """Two epochs of so many seconds, on `ranks` devices."""
    path.mkdir()
    record = {"lr": 0.1, "train": {"loss": 1.0}, "seconds": seconds, "images_per_second": 1.0}
    lines = [json.dumps({"epoch": epoch, "ranks": ranks, **record}) for epoch in (1, 2)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if report is not None:
        (path / "report.json").write_text(json.dumps(report))
    return RunFolder(path)


def a_report(ranks: object, attack: object, **environment: object) -> dict:
    """The checkpoints best and last are of the same weights: one evaluation, once paid for."""
    shared = {"evaluation": "best.json", "created": "2026-11-22T12:30:00+00:00"}
    results = [
        {"checkpoint": checkpoint, "label": label, "seconds": seconds, **shared}
        for checkpoint in ("best", "last")
        for label, seconds in (("clean", 9.0), ("pgd-20", attack))
    ]
    time = {"time": "2026-11-22T10:00:00+00:00", "ranks": ranks, "gpu": "NVIDIA H100"}
    return {"environment": time | environment, "results": results}


def test_costs_are_summed_over_all_trials_that_have_begun(tmp_path: Path) -> None:
    trials = [
        a_trial(tmp_path / "done", 100.0, 4, a_report(4, 30.0)),
        a_trial(tmp_path / "stopped early", 50.0, 1),
        a_trial(tmp_path / "damaged", 10.0, 1, {"environment": [], "results": 3}),
        RunFolder(tmp_path / "waiting"),
    ]
    found = total_cost(map(cost_of, trials))
    assert found is not None
    assert (found.trials, found.training_seconds, found.attack_seconds) == (3, 320.0, 30.0)
    assert found.device_seconds == pytest.approx(4 * 200 + 4 * 30 + 100 + 20)
    assert found.hardware == {"NVIDIA H100, 4 ranks": 1}
    assert found.facts == {
        "date": "2026-11-22 10:00 \N{EN DASH} 2026-11-22 12:30",
        "hardware": "NVIDIA H100, 4 ranks",
        "cost": "training 5 min 20 s, attacks 30 s, over 3 trials",
        "device time": "17 min 20 s",
    }
    assert total_cost([cost_of(RunFolder(tmp_path / "waiting"))]) is None
    shown = replace(table(row("pgd", {"clean": 0.8})), cost=found)
    text = Page(to_html(shown, Path("out"), to_svg(shown))).text
    assert [each for each in found.facts.values() if each not in text] == []


@pytest.mark.parametrize("odd", ["30", None, True, -1, 0, 1e308, math.inf, math.nan, 10**400])
def test_damaged_numbers_count_as_nothing(tmp_path: Path, odd: object) -> None:
    """Whatever a file holds, the sweep still ends with its table, and the sums are of the rest."""
    damaged = a_trial(tmp_path / "damaged", 10.0, odd, a_report(odd, odd))
    huge = a_trial(tmp_path / "huge", 1e308, 2)
    found = total_cost(map(cost_of, [damaged, huge]))
    assert found is not None
    assert (found.training_seconds, found.attack_seconds, found.device_seconds) == (20.0, 0.0, 20.0)
    assert found.facts["cost"] == "training 20 s, attacks 0.0 s, over 1 trial"
