"""Where a run would stand, against the published list itself; and runs side by side."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import an_epoch, an_evaluation
from typer.testing import CliRunner

from rpat_cli.attacks.threat import Threat
from rpat_cli.cli.app import app
from rpat_cli.reports import leaderboard
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.side_by_side import side_by_side, to_csv, to_latex, to_markdown
from rpat_cli.reports.write import write_report

PUBLISHED = Path(__file__).parents[1] / "golden" / "robustbench_entries.tsv"
EPS = 8 / 255


def published(dataset: str, norm: str) -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for row in rows if (row["dataset"], row["threat"]) == (dataset, norm)]


def cifar(make_run, **more):
    run = make_run(epochs=1, data={"name": "cifar10"}, threat={"norm": "Linf", "eps": EPS}, **more)
    run.save_last(1).train([an_epoch(1, 0.6, 0.3)])
    return run


@pytest.mark.parametrize("key", list(leaderboard.boards()))
def test_entries_are_those_published(key):
    ours = leaderboard.entries(*key)
    theirs = published(*key)
    assert {(each.name, round(100 * each.robust_acc, 2)) for each in ours} == {
        (row["entry"], float(row["robust_acc"])) for row in theirs
    }
    assert ours == sorted(ours, key=lambda each: -each.robust_acc)
    none = leaderboard.entries(*key, leaderboard.NO_EXTRA)
    assert {each.name for each in none} == {
        row["entry"] for row in theirs if row["additional_data"] == "false"
    }


def test_the_place_is_the_number_of_better_entries_and_one(make_run):
    run = cifar(make_run)
    evaluation = an_evaluation(80, {"pgd-20": 60, "autoattack": 50}, threat=Threat("Linf", EPS))
    run.evaluate("best", 1, evaluation, data="cifar10")
    report = build_report(run.folder)
    (found,) = report.standings
    values = [
        float(row["robust_acc"]) / 100
        for row in published("cifar10", "Linf")
        if row["additional_data"] == "false"
    ]
    low, high = found.interval_95
    assert low < 0.5 < high
    assert found.place == 1 + sum(value > 0.5 for value in values)
    assert found.first == 1 + sum(value > high for value in values)
    assert found.last == 1 + sum(value > low for value in values)
    assert found.among == 1 + len(values)
    assert found.above.robust_acc == min(value for value in values if value > 0.5)
    write_report(run.folder)
    assert f"would be place {found.place} of {found.among}" in run.folder.html.read_text()
    saved = json.loads(run.folder.report.read_text())["standings"]
    assert saved[0]["place"] == found.place
    answer: Any = CliRunner().invoke(app, ["leaderboard", str(run.folder.path), "--json"])
    assert json.loads(answer.stdout)["standings"] == saved


def test_only_what_is_comparable_is_placed(make_run):
    run = cifar(make_run)
    threat = Threat("Linf", EPS)
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}, threat=threat), data="cifar10")
    assert not build_report(run.folder).standings  # without AutoAttack
    assert leaderboard.standing("", "cifar10", "Linf", 4 / 255, "any", 0.5, (0.4, 0.6)) is None
    assert leaderboard.standing("", "svhn", "Linf", EPS, "any", 0.5, (0.4, 0.6)) is None
    first = leaderboard.standing("", "cifar10", "Linf", EPS, "any", 0.99, (0.98, 1.0))
    assert (first.place, first.above) == (1, None)


def test_runs_side_by_side_in_every_format(make_run):
    reports = {}
    for name, robust in (("a_1", 60), ("b|2", 40)):
        run = make_run(epochs=1).save_last(1)
        run.train([an_epoch(1, 0.6, 0.3)])
        run.evaluate("best", 1, an_evaluation(80, {"pgd-20": robust}))
        reports[name] = build_report(run.folder)
        run.folder.path.rename(run.folder.path.with_name(f"moved-{robust}"))
    table = side_by_side(reports, "best")
    assert [line.run for line in table.lines] == ["a_1", "b|2"]
    assert table.attacks == ("clean", "pgd-20")
    rows = list(csv.DictReader(to_csv(table).splitlines()))
    found = {(row["run"], row["attack"]): float(row["acc"]) for row in rows}
    assert found == {
        ("a_1", "clean"): 0.8,
        ("a_1", "pgd-20"): 0.6,
        ("b|2", "clean"): 0.8,
        ("b|2", "pgd-20"): 0.4,
    }
    markdown = to_markdown(table).splitlines()
    assert markdown[2].startswith("| a_1, best | 80.00 (")
    assert markdown[3].startswith("| b\\|2, best | 80.00 (")
    assert r"a\_1, best & 80.00 (" in to_latex(table)
    assert not table.remarks


def test_a_folder_of_runs_is_reported_with_one_command(tmp_path, monkeypatch):
    import shutil

    old = Path(__file__).parents[1] / "compat" / "data"
    shutil.copytree(old, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "runs" / "sweep" / "trials" / "a243fcd53790" / "run" / "report.html"
    assert not page.exists()
    answer: Any = CliRunner().invoke(app, ["report", "runs", "--json"])
    assert answer.exit_code == 0
    found = json.loads(answer.stdout)
    assert len(found["lines"]) == 3  # the stopped run has no evaluation
    assert len(found["pages"]) == 4
    assert page.exists()
    wrong: Any = CliRunner().invoke(app, ["report", "nowhere", "absent"])
    assert wrong.exception.exit_code == 1
    assert all(name in str(wrong.exception) for name in ("nowhere", "absent"))
