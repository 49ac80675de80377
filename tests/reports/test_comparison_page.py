"""`rpat compare --page`: the numbers of --json, the curves of both, what differs, links that lead
somewhere; escaped, and never over a file that is there."""

import json
from pathlib import Path

import pytest
from fake_runs import FakeRun, an_epoch, an_evaluation
from test_report_html import Page

from rpat_cli.cli.compare_session import compare
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.training_charts import training_charts
from rpat_cli.reports.write import write_report
from rpat_cli.text import percent, percent_range, signed_percent, signed_range


def a_pair(make_run) -> tuple[FakeRun, FakeRun]:
    """PGD, and TRADES that is better under PGD-20 and worse on clean images."""
    pgd = make_run(epochs=3).train([an_epoch(e, 0.7, 0.3 + e / 20) for e in (1, 2, 3)])
    pgd.save_last(3).evaluate("best", 3, an_evaluation(84, {"pgd-20": 40, "autoattack": 38}))
    better = {"name": "trades", "beta": 3}
    trades = make_run(epochs=4, method=better, ra=True).train(
        [an_epoch(e, 0.6, 0.4 + e / 20, ce=1 / e, kl=0.5 / e, ra=0.01) for e in (1, 2, 3, 4)]
    )
    trades.save_last(4).evaluate("best", 4, an_evaluation(81, {"pgd-20": 55, "autoattack": 45}))
    return pgd, trades


def page_of(capsys: pytest.CaptureFixture[str], file: Path, *runs: Path) -> tuple[dict, Path]:
    """What `--json` prints, and the file that was written."""
    compare(*runs, checkpoint=None, changed=False, as_json=True, page=file)
    answer = capsys.readouterr()
    return json.loads(answer.out), Path(answer.err.split("page: ")[1].replace("\n", ""))


def test_the_page_has_the_numbers_of_the_json(make_run, tmp_path, capsys) -> None:
    pgd, trades = a_pair(make_run)
    write_report(trades.folder)
    said, file = page_of(capsys, tmp_path / "versus", pgd.folder.path, trades.folder.path)
    assert file == tmp_path / "versus.html"
    page = Page(file.read_text())
    for each in said["comparisons"]:
        shown = (
            f"{each['label']}{percent(each['a'])}{percent_range(each['a_interval_95'])}"
            f"{percent(each['b'])}{percent_range(each['b_interval_95'])}"
            f"{signed_percent(each['difference'])}{signed_range(each['difference_interval_95'])}"
            f"{len(each['only_a'])}{len(each['only_b'])}{each['p']:.2g}"
        )
        assert shown in page.text
    assert {each["label"] for each in said["comparisons"]} >= {"clean", "autoattack", "worst case"}
    assert said["data"] == {"name": "fashion-mini", "limit": None, "n": 100}
    assert said["threat"] == {"norm": "Linf", "eps": 0.1}
    words = ("all 100 test images of fashion-mini", "Linf, eps 0.1", "checkpoint best", "trades+ra")
    assert [each for each in words if each not in page.text] == []
    assert "method.namepgdtrades" in page.text  # the recipe's differences
    assert "method.betanone3" in page.text
    [link] = [each for each in page.references if each.endswith("report.html")]
    assert (tmp_path / link).samefile(trades.folder.html)  # PGD has no report yet


def test_a_report_has_the_curves_of_a_baseline(make_run) -> None:
    pgd, trades = (run.folder for run in a_pair(make_run))
    baseline = build_report(pgd)
    write_report(trades, baseline)
    text = Page(trades.html.read_text()).text
    assert f"Dashed: the baseline, {pgd.path}" in text
    assert "validation robust, this run 60.0" in text
    assert "validation robust, baseline 45.0" in text


def test_a_file_that_is_there_stays(make_run, tmp_path, capsys) -> None:
    runs = [run.folder.path for run in a_pair(make_run)]
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    _, file = page_of(capsys, mine, *runs)
    assert (mine.read_text(), file.name) == ("mine", "mine-2.html")


def test_files_without_a_run_are_compared_without_curves_and_recipes(
    make_run, tmp_path, capsys
) -> None:
    pgd, trades = a_pair(make_run)
    (file,) = pgd.folder.evals.glob("*.json")
    alone = tmp_path / "<b>alone.json"
    alone.write_bytes(file.read_bytes())
    _, written = page_of(capsys, tmp_path / "page.html", alone, trades.folder.path)
    html = written.read_text()
    assert "<b>alone" not in html
    page = Page(html)
    assert "<b>alone.json" in page.text
    assert "Not known: A has no recipe that can be read" in page.text
    assert "Only B has records of its training" in page.text
    _, written = page_of(capsys, tmp_path / "page.html", trades.folder.path, trades.folder.path)
    assert "the recipes are the same" in Page(written.read_text()).text


def test_lines_of_one_name_have_one_color_and_the_baseline_is_below(make_run) -> None:
    pgd, trades = (build_report(run.folder) for run in a_pair(make_run))
    validation, _, terms, small, _ = training_charts(trades, pgd, ("B", "A"))
    assert [(line.name, line.color, line.under) for line in validation.lines] == [
        ("validation clean, B", 0, False),
        ("validation clean, A", 0, True),
        ("validation robust, B", 1, False),
        ("validation robust, A", 1, True),
    ]
    assert [line.name for line in terms.lines] == [*("sum, B", "sum, A", "ce, B", "ce, A", "kl, B")]
    assert [line.name for line in small.lines] == ["ra, B", "ra, A"]
