"""The page of a sweep: alone, escaped, with the right headline; the plot's accuracies; the files
that are written."""

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.intervals import Difference, Stat
from rpat_cli.sweep.page import (
    best_of,
    command,
    grouped_rows,
    plot_of,
    points,
    robust_metric,
    tally,
    to_html,
    to_svg,
    write_table,
)
from rpat_cli.sweep.sweep_file import find_sweep
from rpat_cli.sweep.table import SweepTable, TableRow, build_table

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Fails on tags that do not nest; keeps the text and what is referred to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [
            value for name, value in attrs if name in ("src", "href", "data", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def row(
    label: str,
    found: dict[str, float],
    baseline: str | None = None,
    low: float = -0.01,
    **more: object,
) -> TableRow:
    """`low` to `low + 0.02` is the interval of each difference."""
    stats = {metric: Stat(mean, 0.01, 3) for metric, mean in found.items()}
    difference = Difference(low + 0.01, (low, low + 0.02), 3)
    return TableRow(
        label=label,
        checkpoint=str(more.get("checkpoint", "best")),
        n=3 if found else 0,
        planned=3,
        stats=stats,
        baseline=baseline,
        differences=dict.fromkeys(found, difference) if baseline else {},
    )


def table(
    *rows: TableRow, metrics: tuple[str, ...] = ("clean", "pgd-20", "apgd-t"), **more: object
) -> SweepTable:
    return SweepTable("mine", metrics, rows, more.pop("failures", {}), source="mine.yaml", **more)  # type: ignore[arg-type]


@pytest.fixture
def found() -> SweepTable:
    return table(
        row("pgd", {"clean": 0.80, "pgd-20": 0.50, "apgd-t": 0.45}),
        row("pgd", {"clean": 0.79, "pgd-20": 0.49, "apgd-t": 0.46}, checkpoint="last"),
        row("pgd + ra", {"clean": 0.82, "pgd-20": 0.48, "apgd-t": 0.44}, "pgd", low=-0.03),
        row("trades <b>", {"clean": 0.81, "pgd-20": 0.51, "apgd-t": 0.44}, "pgd", low=0.001),
    )


def test_robust_is_autoattack_or_else_the_strongest_attack(found: SweepTable) -> None:
    assert robust_metric(found) == "apgd-t"
    both = table(
        row("pgd", {"clean": 0.8, "autoattack": 0.5, "apgd-t": 0.4, "Mean": 0.65, "NRR": 0.1})
    )
    assert robust_metric(both) == "autoattack"
    some = table(
        row("a", {"clean": 0.8, "pgd-20": 0.5}),
        row("b", {"clean": 0.8, "pgd-20": 0.5, "pgd-50": 0.4}),
    )
    assert (
        robust_metric(some) == "pgd-20"
    )  # a stronger one that only some rows have compares nothing
    assert robust_metric(table(row("a", {"clean": 0.8}))) is None


def test_points_are_rows_with_both_accuracies(found: SweepTable) -> None:
    [first, last, ra, trades] = points(found, "apgd-t")
    assert (first.name, first.kind, first.family, first.baseline) == ("pgd", "best", "pgd", True)
    assert (last.kind, last.x, last.y, last.x_sd, last.y_sd) == ("last", 0.79, 0.46, 0.01, 0.01)
    assert (ra.family, ra.baseline) == ("pgd", False)
    assert trades.tooltip == "trades <b>, best\nclean 81.00 ± 1.00\napgd-t 44.00 ± 1.00"
    assert points(table(row("a", {"clean": 0.8})), "apgd-t") == []


def test_the_headline_is_the_best_and_what_is_beyond_seed_noise(found: SweepTable) -> None:
    assert (best_of(found, "clean").row.label, best_of(found, "apgd-t").row.checkpoint) == (
        "pgd + ra",
        "last",
    )
    counted = tally(found, "apgd-t")
    assert (counted.n, counted.above, counted.below) == (2, 1, 1)
    assert tally(table(row("pgd", {"clean": 0.8})), "clean") is None


def test_the_table_marks_the_front_and_what_is_decided(found: SweepTable) -> None:
    [pgd, ra, trades] = grouped_rows(found, "apgd-t")
    # On the front of the means are three, but another seed could change that.
    assert [line.front for line in (*pgd, *ra, *trades)] == [False] * 4
    assert [cell.decided for cell in (*pgd[0].cells, *ra[0].cells, *trades[0].cells)] == [0] * 3 + [
        -1
    ] * 3 + [1] * 3
    assert ra[0].cells[0].value == "82.00 ± 1.00"
    assert ra[0].cells[0].difference == "-2.00 [-3.00, -1.00]"


def test_the_page_is_well_formed_alone_and_escaped(found: SweepTable) -> None:
    failed = table(
        *found.rows,
        failures={"pgd, seed 0": "killed by SIGKILL\n<script>alert(1)</script>"},
        notes=("asha <i>: 3 stopped",),
    )
    html = to_html(failed, Path("out"), to_svg(failed))
    page = Page(html)
    assert page.references == []
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1  # of the buttons that copy
    assert "@import" not in html
    assert "url(" not in html
    assert "<script>alert(1)</script>" in page.text
    assert page.text.count("asha <i>: 3 stopped") == 1
    assert "trades <b>" in page.text
    assert "rpat sweep mine.yaml --out out" in page.text
    assert "-2.00 [-3.00, -1.00]" in page.text
    assert page.tags.count("svg") == 2  # the plot, and the part of it that is clipped


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row("pgd", {"clean": 0.8})], "No robust accuracy was measured. Add an attack to eval:"),
        ([row("pgd", {})], "No trial is finished yet."),
        ([], "No trial is finished yet."),
    ],
)
def test_without_a_robust_accuracy_there_is_a_reason_in_place_of_the_plot(
    rows: list[TableRow], reason: str
) -> None:
    empty = table(*rows, metrics=("clean",))
    assert plot_of(empty) is None
    picture = to_svg(empty)
    assert reason in "".join(ElementTree.fromstring(picture).itertext())
    page = Page(to_html(empty, Path("out"), picture))
    assert reason in page.text
    assert "svg" not in page.tags


def test_finished_trials_are_linked(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("grid: {method: [pgd]}\nseeds: 2\n")
    plan = plan_sweep(file)
    first = plan.trials[0]
    found = {"best": {"clean": 0.8}, "last": {"clean": 0.8}}
    made = build_table(plan, {first.name: found}, {})
    page = Page(to_html(made, tmp_path, to_svg(made)))
    assert page.references == [f"trials/{first.name}/run/report.html"]
    assert "seed 0" in page.text


def test_how_to_repeat_it_names_the_sweep(tmp_path: Path) -> None:
    shipped = build_table(plan_sweep(find_sweep("fashion-mini-methods")), {}, {})
    assert (
        command(shipped, Path("sweeps/fashion-mini-methods")) == "rpat sweep fashion-mini-methods"
    )
    small = build_table(plan_sweep(find_sweep("claim-cifar10"), ["model=small-cnn"]), {}, {})
    assert command(small, Path("sweeps/claim-cifar10")).endswith("--set model=small-cnn")
    file = tmp_path / "my sweep.yaml"
    file.write_text("grid: {method: [pgd]}\n")
    own = build_table(plan_sweep(file), {}, {})
    assert command(own, Path("elsewhere")) == f"rpat sweep '{file}' --out elsewhere"


def test_all_files_are_written(found: SweepTable, tmp_path: Path) -> None:
    write_table(found, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.json", "table.csv", "table.md", "table.tex", "table.html", "pareto.svg"}
    assert (tmp_path / "pareto.svg").read_text() in (tmp_path / "table.html").read_text()
