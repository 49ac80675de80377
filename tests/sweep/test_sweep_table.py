"""Means, spreads and intervals against closed forms; the same metrics in every format."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rpat_cli.evaluation.statistics import t_quantile_95
from rpat_cli.reports.saved_report import Results
from rpat_cli.sweep.expand import Plan, plan_sweep
from rpat_cli.sweep.intervals import Stat, paired_difference
from rpat_cli.sweep.table import (
    build_table,
    failures_text,
    sweep_table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from rpat_cli.text import DASH

Write = Callable[[str], Path]

CLEAN = {"pgd": [0.80, 0.82, 0.84], "pgd + ra": [0.81, 0.85, 0.86]}


@pytest.fixture
def plan(write: Write) -> Plan:
    return plan_sweep(
        write(
            "recipe: {epochs: 1}\ngrid: {method: [pgd], ra: [false, true]}\nseeds: 3\n"
            "eval: [clean, pgd-20, autoattack]\nbaseline: {ra: false}"
        )
    )


def found(plan: Plan, without: frozenset[str] = frozenset()) -> dict[str, Results]:
    """Results of all trials but those `without`; the last checkpoint is one point worse than the
    best."""
    results = {}
    for trial in plan.trials:
        clean = CLEAN[trial.label][trial.seed]
        best = {"clean": clean, "pgd-20": clean - 0.3, "autoattack": clean - 0.4}
        if trial.title not in without:
            results[trial.name] = {
                "best": best,
                "last": {label: acc - 0.01 for label, acc in best.items()},
            }
    return results


def test_the_t_quantile_has_its_closed_forms() -> None:
    assert t_quantile_95(1) == pytest.approx(math.tan(0.475 * math.pi))
    assert t_quantile_95(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)))


def test_paired_differences_are_of_common_seeds() -> None:
    difference = paired_difference(
        {0: 0.81, 1: 0.85, 2: 0.86, 7: 0.1}, {0: 0.80, 1: 0.82, 2: 0.84, 9: 0.9}
    )
    assert difference is not None
    assert difference.mean == pytest.approx(0.02)
    assert difference.n == 3
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # the differences are 0.01, 0.03, 0.02: sd 0.01
    assert difference.interval == pytest.approx((0.02 - half, 0.02 + half))
    assert paired_difference({0: 0.5}, {0: 0.4}).interval is None
    assert paired_difference({0: 0.5}, {1: 0.4}) is None


def test_a_single_value_has_no_spread() -> None:
    assert Stat.of([0.5]) == Stat(0.5, None, 1)
    assert Stat.of([0.1, 0.2, 0.3]).sd == pytest.approx(0.1)


def test_rows_hold_mean_sd_n_scores_and_differences(plan: Plan) -> None:
    table = build_table(plan, found(plan), {})
    assert table.metrics == ("clean", "pgd-20", "autoattack", "Mean", "NRR")
    rows = {(row.label, row.checkpoint): row for row in table.rows}
    assert list(rows) == [
        ("pgd", "best"),
        ("pgd", "last"),
        ("pgd + ra", "best"),
        ("pgd + ra", "last"),
    ]
    best = rows["pgd + ra", "best"]
    assert best.stats["clean"].mean == pytest.approx(0.84)
    assert best.stats["clean"].sd == pytest.approx(math.sqrt((9 + 1 + 4) / 2) / 100)
    assert best.stats["Mean"].mean == pytest.approx(0.84 - 0.2)
    harmonic = [2 * c * (c - 0.4) / (2 * c - 0.4) for c in CLEAN["pgd + ra"]]
    assert best.stats["NRR"].mean == pytest.approx(sum(harmonic) / 3)
    assert best.differences["clean"].mean == pytest.approx(0.02)
    assert rows["pgd", "best"].differences == {}
    assert best.values["clean"] == dict(enumerate(CLEAN["pgd + ra"]))
    written = json.loads(to_json(table))["rows"][2]
    assert written["values"]["clean"] == {"0": 0.81, "1": 0.85, "2": 0.86}
    assert rows["pgd + ra", "last"].stats["clean"].mean == pytest.approx(0.83)


def test_what_is_missing_is_left_out_of_n_and_of_the_pairs(plan: Plan) -> None:
    gone = frozenset({"pgd, seed 0"})
    failed = {
        trial.name: "killed by SIGKILL\n[last] line" for trial in plan.trials if trial.title in gone
    }
    table = build_table(plan, found(plan, gone), failed)
    rows = {(row.label, row.checkpoint): row for row in table.rows}
    assert (rows["pgd", "best"].n, rows["pgd", "best"].planned) == (2, 3)
    assert rows["pgd + ra", "best"].differences["clean"].n == 2
    assert rows["pgd + ra", "best"].differences["clean"].mean == pytest.approx(0.025)
    assert "2 of 3" in to_markdown(table)
    assert str(failures_text(table)) == "! pgd, seed 0: killed by SIGKILL\n    [last] line"


def test_what_has_no_result_is_in_every_format(plan: Plan) -> None:
    table = build_table(plan, {}, {})
    assert f"| pgd | best | 0 of 3 |{f' {DASH} |' * 5}" in to_markdown(table)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(lines) == 4 * 5
    assert {(line["n"], line["mean"], line["sd"]) for line in lines} == {("0", "", "")}


def test_averaged_weights_are_rows_and_compare_with_plain_ones(write: Write) -> None:
    plan = plan_sweep(
        write("recipe: {epochs: 4}\ngrid: {wa: [false, true]}\nbaseline: {wa: false}")
    )
    plain, averaging = (trial.name for trial in plan.trials)
    results = {
        plain: {"best": {"clean": 0.5}, "last": {"clean": 0.4}},
        averaging: {name: {"clean": 0.7} for name in ("best", "last", "best_wa", "last_wa")},
    }
    rows = {(row.label, row.checkpoint): row for row in build_table(plan, results, {}).rows}
    assert len(rows) == 6
    assert rows["wa", "best_wa"].differences["clean"].mean == pytest.approx(0.2)
    assert rows["wa", "last_wa"].differences["clean"].mean == pytest.approx(0.3)


def test_every_format_holds_the_same_numbers(plan: Plan) -> None:
    table = build_table(plan, found(plan), {})
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(lines) == 4 * 5
    for row in json.loads(to_json(table))["rows"]:
        for line in (
            line
            for line in lines
            if (line["variant"], line["checkpoint"]) == (row["label"], row["checkpoint"])
        ):
            assert float(line["mean"]) == row["stats"][line["metric"]]["mean"]
            assert float(line["sd"]) == row["stats"][line["metric"]]["sd"]
            if row["baseline"]:
                assert float(line["low_95"]) == row["differences"][line["metric"]]["interval"][0]
    assert "| pgd + ra | best | 3 | 84.00 ± 2.65<br>+2.00 [-0.48, +4.48] |" in to_markdown(table)
    assert r"pgd + ra & best & 3 & 84.00 $\pm$ 2.65 {\small $+2.00 [-0.48, +4.48]$} &" in to_latex(
        table
    )
    screen = Console(width=160, record=True, file=io.StringIO())
    screen.print(sweep_table(table))
    assert "84.00 ± 2.65" in (text := screen.export_text())
    assert "+2.00 [-0.48, +4.48]" in text


def test_latex_escapes_what_it_must(write: Write) -> None:
    plan = plan_sweep(write("grid: {batch_size: [50]}"))
    latex = to_latex(build_table(plan, {}, {}))
    assert r"batch\_size=50 & best & 0 of 1 & -- & -- \\" in latex
    assert latex.count(r"\begin{tabular}{llrrr}") == 1
    assert latex.count(r"\toprule") == latex.count(r"\midrule") == latex.count(r"\bottomrule") == 1
