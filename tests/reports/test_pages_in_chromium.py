"""The pages in a real browser: silent, alone, no wider than the window, all text readable, with the
numbers of the JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import chromium, find_chromium
from fake_runs import an_epoch, an_evaluation

from rpat_cli.cli.compare_session import compare
from rpat_cli.cli.report_session import report
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.write import write_report
from rpat_cli.sweep.intervals import Difference, Stat
from rpat_cli.sweep.page import write_table
from rpat_cli.sweep.table import SweepTable, TableRow
from rpat_cli.text import percent

PROGRAM = find_chromium()

UNREADABLE = Path(__file__).with_name("layout.js").read_text(encoding="utf-8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed"),
]


def sweep_rows(stats: dict[str, Stat]) -> Iterator[TableRow]:
    """A group of near points and one far below: the plot then has two frames."""
    difference = Difference(0.0123, (-0.0456, 0.0702), 2)
    for number, name in enumerate(("pgd", "pgd + ra", "trades", "trades + ra")):
        own = {key: Stat(each.mean + number / 200, each.sd, 2) for key, each in stats.items()}
        base = "trades" if name == "trades + ra" else None
        differences = dict.fromkeys(own, difference) if base else {}
        for checkpoint in ("best", "last"):
            yield TableRow(name, checkpoint, 2, 2, own, base, differences, {0: "0.html"})
    low = {"clean": Stat(0.1, 0.0, 2), "pgd-20": Stat(0.1, 0.0, 2)}
    yield TableRow("mart", "best", 2, 2, low, None, {})


COPY = """(async () => {
  const button = document.querySelector(".copied button");
  button.click();
  await new Promise(done => setTimeout(done, 200));
  return button.textContent;
})()"""


def figures(run: RunFolder) -> list[str]:
    return [percent(result["acc"]) for result in json.loads(run.report.read_text())["results"]]


def test_pages_are_silent_alone_readable_and_fit_the_window(make_run, tmp_path: Path) -> None:
    run = make_run(epochs=3).train([an_epoch(e, 0.7, 0.5) for e in (1, 2, 3)]).save_last(3)
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60, "autoattack": 40}))
    write_report(run.folder)
    stats = {"clean": Stat(0.8, 0.01, 2), "pgd-20": Stat(0.5, 0.02, 2)}
    write_table(SweepTable("mine", tuple(stats), tuple(sweep_rows(stats)), {}), tmp_path)
    other = make_run(epochs=2, method="trades", ra=True)
    other.train([an_epoch(e, 0.6, 0.55, ce=1 / e, kl=0.2, ra=0.01) for e in (1, 2)]).save_last(2)
    other.evaluate("best", 1, an_evaluation(70, {"pgd-20": 65, "autoattack": 35}))
    versus = tmp_path / "versus.html"
    pair = (run.folder.path, other.folder.path)
    compare(*pair, checkpoint=None, changed=False, as_json=False, page=versus)
    report([str(pair[1])], None, "text", baseline=str(pair[0]), plugins=[], as_json=False)
    curves = ["validation robust, this run 55.0", "validation robust, baseline 50.0"]
    numbers = {
        versus: ["80.00", "65.00", "-10.00", "+5.00", "method.name"],
        run.folder.html: figures(run.folder),
        other.folder.html: [*figures(other.folder), f"the baseline, {pair[0]}", *curves],
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
                    assert browser.run(UNREADABLE) == [], where
            # Without a window in front and without permissions, and yet without a complaint.
            assert browser.run(COPY) in ("Copied", "Selected: Ctrl+C copies"), page.name
            assert browser.complaints() == [], page.name
