"""The pages in a real browser: silent, alone, and no wider than the window, with the numbers of the
JSON."""

import json
from pathlib import Path

import pytest
from chromium import chromium, find_chromium
from fake_runs import an_epoch, an_evaluation

from rpat_cli.reports.write import write_report
from rpat_cli.sweep.intervals import Stat
from rpat_cli.sweep.page import write_table
from rpat_cli.sweep.table import SweepTable, TableRow
from rpat_cli.text import percent

PROGRAM = find_chromium()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed"),
]


def test_pages_are_silent_alone_and_fit_the_window(make_run, tmp_path: Path) -> None:
    run = make_run(epochs=3).train([an_epoch(e, 0.7, 0.5) for e in (1, 2, 3)]).save_last(3)
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60, "autoattack": 40}))
    write_report(run.folder)
    stats = {"clean": Stat(0.8, 0.01, 2), "pgd-20": Stat(0.5, 0.02, 2)}
    rows = tuple(TableRow(name, "best", 2, 2, stats, None, {}) for name in ("pgd", "trades + ra"))
    write_table(SweepTable("mine", ("clean", "pgd-20"), rows, {}), tmp_path)
    results = json.loads(run.folder.report.read_text())["results"]
    numbers = {
        run.folder.html: [percent(result["acc"]) for result in results],
        tmp_path / "table.html": [percent(stat.mean) for stat in stats.values()],
    }
    with chromium(str(PROGRAM), tmp_path / "profile") as browser:
        for page, expected in numbers.items():
            for width in (1280, 390):
                for dark in (False, True):
                    browser.show(page, width, dark=dark)
                    where = (page.name, width, dark)
                    assert browser.complaints() == [], where
                    assert browser.requests() == [page.resolve().as_uri()], where
                    assert browser.run("document.documentElement.scrollWidth") <= width, where
                    text = browser.run("document.body.innerText")
                    assert [each for each in expected if each not in text] == [], where
