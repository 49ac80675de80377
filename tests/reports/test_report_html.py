"""One file, well formed, nothing from outside, nothing unescaped, whatever parts the run has."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from fake_runs import NAMES, an_epoch, an_evaluation

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.statistics import worst_class
from rpat_cli.reports.confusion import frequent_confusions
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.html import calibrations, class_rows, render_html, waterfalls
from rpat_cli.reports.overview import facts
from rpat_cli.reports.training_charts import training_charts
from rpat_cli.text import DASH

VOID = {"meta", "link", "br", "img", "input", "hr"}
PAPERS = {
    f"https://arxiv.org/abs/{number}" for number in ("2508.02186", "2003.01690", "1706.04599")
}


class Page(HTMLParser):
    """Fails on tags that do not nest; keeps the text, the references, and the elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.references += [
            value
            for name, value in attrs
            if name in ("src", "href", "data", "srcset", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def count(self, tag):
        return sum(1 for name, _ in self.elements if name == tag)


def build(make_run, epochs=3, classes=10, names=None, attacked=None, n=100):
    run = make_run(epochs=epochs).train(
        [an_epoch(e, 0.7, 0.5, ce=1 / e, ra=0.2) for e in range(1, epochs + 1)]
    )
    run.save_last(epochs, names=names or [f"class {k}" for k in range(classes)])
    if attacked:
        run.evaluate("best", 1, an_evaluation(n * 8 // 10, attacked, n=n, classes=classes))
    return build_report(run.folder)


CASES = {
    "usual": {"attacked": {"pgd-20": 60, "autoattack": 40}},
    "one epoch": {"epochs": 1, "attacked": {"pgd-20": 60}},
    "200 epochs, 200 classes": {
        "epochs": 200,
        "classes": 200,
        "attacked": {"autoattack": 400},
        "n": 1000,
    },
    "not evaluated": {},
    "everything broken": {"attacked": {"autoattack": 0}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_well_formed_and_alone(make_run, case):
    html = render_html(build(make_run, **case))
    page = Page(html)
    inside = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert set(page.references) - {f"#{id}" for id in inside} == PAPERS
    assert inside <= {attributes.get("id") for _, attributes in page.elements}
    assert {"recipe", "reproduce"} <= inside  # the contents
    # The one script is within the page: it adds the buttons that copy.
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [{}]
    assert page.count("link") == 0
    assert "@import" not in html
    assert "url(" not in html
    assert page.count("title") >= 1
    charts = [
        attributes
        for tag, attributes in page.elements
        if tag == "svg" and attributes.get("role") == "img"
    ]
    labels = {attributes.get("id") for tag, attributes in page.elements if tag == "title"}
    assert len(charts) == (5 if "attacked" in case else 3)  # calibration without and under attack
    assert all(attributes["aria-labelledby"] in labels for attributes in charts)


def test_a_run_without_anything(make_run):
    page = Page(render_html(build_report(make_run(epochs=2).folder)))
    assert "has not been evaluated" in page.text
    assert page.count("svg") == 0


def test_the_accuracies_are_in_the_text(make_run):
    text = Page(render_html(build(make_run, **CASES["usual"]))).text
    for number in (
        "80.00",
        "60.00",
        "40.00",
        f"30.9{DASH}49.8",
        "53.33",
        "80 of 100 test images",
        "best (epoch 1)",
    ):
        assert number in text


def test_names_are_escaped(make_run):
    names = ["<b>bold</b>", '"><script>alert(1)</script>', *"cdefghij"]
    html = render_html(build(make_run, names=names, attacked={"pgd-20": 60}))
    assert "<b>bold" not in html
    assert "<script>alert" not in html
    assert "<b>bold</b>" in Page(html).text


def test_no_number_leaves_the_picture(make_run):
    for chart in training_charts(build(make_run, epochs=7)):
        for line in chart.lines:
            for x, y in (tuple(map(float, point.split(","))) for point in line.path.split()):
                assert chart.left <= x <= chart.right
                assert chart.top <= y <= chart.bottom
    assert not re.search(
        r"\b(nan|inf)\b",
        render_html(build(make_run, **CASES["one epoch"])).lower().split("<body>")[1],
    )


def test_charts_show_what_there_is(make_run):
    accuracy, loss, rate = training_charts(build(make_run, epochs=4))
    assert [line.name for line in accuracy.lines] == [
        "validation clean",
        "validation robust",
        "training robust",
    ]
    assert [(line.name, line.last) for line in loss.lines] == [
        ("sum", "0.45"),
        ("ce", "0.25"),
        ("ra", "0.2"),
    ]
    assert rate.lines[0].last == "0.1"
    assert accuracy.mark == accuracy.lines[0].dots[0][0]  # all epochs alike: the first is the best


def test_small_loss_terms_are_drawn_on_their_own_scale(make_run):
    run = make_run(epochs=2).train(
        [an_epoch(e, 0.7, 0.5, ce=2.0, kl=0.3, ra=0.001) for e in (1, 2)]
    )
    _, large, small, _ = training_charts(build_report(run.folder))
    assert [line.name for line in large.lines] == ["sum", "ce", "kl"]
    assert [(line.name, line.last) for line in small.lines] == [("ra", "0.001")]
    assert small.y_ticks[-1].label == "0.001"


def test_rare_validation(make_run):
    records = [an_epoch(e, 0.7, e / 10) if e % 2 == 0 else an_epoch(e) for e in range(1, 6)]
    accuracy, *_ = training_charts(build_report(make_run(epochs=5).train(records).folder))
    assert {line.name: len(line.dots) for line in accuracy.lines} == {
        "validation clean": 2,
        "validation robust": 2,
        "training robust": 5,
    }


def test_waterfall_goes_from_clean_to_robust(make_run):
    row = build(make_run, attacked={"pgd-20": 60, "autoattack": 40}).rows[0]
    (fall,) = waterfalls(row)
    assert [bar.name for bar in fall.bars] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (fall.before, fall.bars[-1].left) == (80, 40)
    assert fall.bars[0].start + fall.bars[0].width == pytest.approx(0.8)
    assert fall.bars[-1].start == pytest.approx(0.4)
    for before, after in zip(fall.bars, fall.bars[1:], strict=False):
        assert after.start + after.width == pytest.approx(before.start)


def test_many_classes_show_the_weakest(make_run):
    report = build(make_run, classes=200, attacked={"pgd-20": 450}, n=1000)
    shown = class_rows(report, report.rows[0])
    assert len(shown) == 10
    # Label i is i modulo 200 and the first 450 are right: classes 0 to 49 keep 3 of 5, the others 2
    # of 5.
    assert {item.robust.value for item in shown} == {0.4}
    assert "The 10 weakest of 200 classes" in Page(render_html(report)).text


def test_of_equally_bad_classes_every_place_names_the_first(make_run):
    """The page, the JSON and the terminal, whatever the accuracies on clean images are."""
    run = make_run(epochs=1).save_last(1).train([an_epoch(1, 0.6, 0.3)])
    # On clean images the last classes are the worse ones; under attack all are alike.
    run.evaluate("best", 1, an_evaluation(85, {"pgd-20": 60}))
    report = build_report(run.folder)
    shown = class_rows(report, report.rows[0])
    assert len({row.robust.value for row in shown}) == 1
    assert len({row.clean.value for row in shown}) == 2
    found = next(each for each in report.to_dict()["results"] if each["label"] == "pgd-20")
    assert found["worst_class"]["class"] == 0
    assert worst_class([row.robust for row in shown]) == 0
    assert f"Worst under pgd-20: {NAMES[0]} with" in render_html(report)


def test_the_strongest_attack_is_the_one_that_leaves_least(make_run):
    row = build(make_run, attacked={"pgd-20": 35, "autoattack": 40}).rows[0]
    assert row.strongest is row.results["pgd-20"]
    row = build(make_run, attacked={"pgd-20": 40, "autoattack": 40}).rows[0]
    assert row.strongest is row.results["autoattack"]


def table_of(page, kind):
    """The rows of the first table of that class: of each cell its classes, its style and its
    title."""
    start = next(
        i
        for i, (tag, found) in enumerate(page.elements)
        if tag == "table" and found.get("class") == kind
    )
    rows = []
    for tag, attributes in page.elements[start:]:
        if tag == "tr":
            rows.append([])
        elif tag == "td":
            rows[-1].append(attributes)
        elif tag == "h2":
            break
    return rows[1:]


def test_the_heat_map_has_a_cell_for_every_pair_of_classes(make_run):
    report = build(make_run, names=NAMES, attacked={"autoattack": 40})
    page = Page(render_html(report))
    rows = table_of(page, "heat")
    assert [len(row) for row in rows] == [10] * 10
    # 40 of 100 are right, 4 of every class; the other 6 are taken for the next class.
    for k, row in enumerate(rows):
        assert (row[k]["class"], row[k]["style"]) == ("right", "--share:0.400")
        assert (row[(k + 1) % 10].get("class"), row[(k + 1) % 10]["style"]) == (
            None,
            "--share:0.600",
        )
        assert sum(cell["style"] == "--share:0.000" for cell in row) == 8
    assert rows[0][1]["title"] == "T-shirt predicted as Trouser: 6 images, 60.0 %"
    assert "Worst under autoattack: T-shirt with 40.00 %" in page.text


def test_many_classes_show_the_most_frequent_confusions(make_run):
    report = build(make_run, classes=200, attacked={"pgd-20": 450}, n=1000)
    page = Page(render_html(report))
    assert "The 10 most frequent confusions" in page.text
    assert not [1 for tag, attributes in page.elements if attributes.get("class") == "heat"]
    found = frequent_confusions(report.rows[0].strongest.confusion, report.class_names)
    # Classes 0 to 49 keep 3 of 5, the others 2 of 5; what is wrong is taken for the next class.
    assert [(cell.true, cell.predicted, cell.count, cell.share) for cell in found[:2]] == [
        ("class 50", "class 51", 3, 0.6),
        ("class 51", "class 52", 3, 0.6),
    ]
    assert len(found) == 10


def test_nothing_confused_is_no_confusion():
    assert frequent_confusions(torch.tensor([[3, 0], [0, 2]]), ("a", "b")) == []
    found = frequent_confusions(torch.tensor([[0, 1, 4], [0, 0, 0], [2, 0, 0]]), ())
    assert [cell.count for cell in found] == [4, 2, 1]


def test_the_reliability_diagram_is_where_accuracy_and_confidence_are(make_run):
    clean, robust = calibrations(build(make_run, attacked={"pgd-20": 70, "autoattack": 40}).rows[0])
    assert [(chart.title, round(chart.ece, 4)) for chart in (clean, robust)] == [
        ("Clean", 0.18),
        ("Under autoattack", 0.34),
    ]
    wrong, right = robust.columns  # 60 images, wrong with confidence 0.5; 40, right with 0.9
    height = robust.bottom - robust.top
    assert (wrong.accuracy_y, right.accuracy_y) == (robust.bottom, robust.top)
    assert wrong.confidence_y == pytest.approx(robust.bottom - 0.5 * height, abs=0.01)
    assert (right.gap_top, right.gap_height) == (robust.top, pytest.approx(0.1 * height, abs=0.01))
    assert wrong.strip_y == robust.strip_top
    strip = robust.strip_bottom - robust.strip_top
    assert robust.strip_bottom - right.strip_y == pytest.approx(40 / 60 * strip, abs=0.01)
    for column in (*clean.columns, *robust.columns):
        assert robust.left <= column.x < column.x + column.width <= robust.right
    assert "confidence 90.0 %, accuracy 100.0 % (40 images)" in robust.description


def test_without_recorded_confidences_there_is_no_calibration(make_run):
    run = make_run(epochs=1).train([an_epoch(1, 0.6, 0.3)])
    evaluation = an_evaluation(80, {"pgd-20": 60})
    old = [replace(result, confidence=None, margin=None) for result in evaluation.results]
    run.evaluate(
        "best", 1, replace(evaluation, results=tuple(old), clean_confidence=None, classes=None)
    )
    page = Page(render_html(build_report(run.folder)))
    assert "Calibration" not in page.text
    assert "Confusion under pgd-20" in page.text


def test_another_threat_is_named(make_run):
    run = make_run(epochs=1).train([an_epoch(1, 0.6, 0.3)])
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 10}, threat=Threat("L2", 0.5)), "13:00:00")
    text = Page(render_html(build_report(run.folder))).text
    assert "L2, eps 0.5" in text
    assert "10.00" in text


def test_the_top_of_the_page_says_what_to_trust_and_what_it_took(make_run):
    run = make_run(epochs=3).train([an_epoch(e, 0.7, 0.5) for e in (1, 2, 3)]).save_last(3)
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    report = build_report(run.folder)
    environment = {
        "gpu": None,
        "cpu": "AMD EPYC",
        "threads": 2,
        "time": "2026-11-22T11:58:03+00:00",
    }
    assert facts(replace(report, trained_in=environment)) == {
        "trained": "2026-11-22 11:58",
        "evaluated": "2026-11-22 12:00",
        "hardware": "AMD EPYC, 2 threads",
        "cost": "training 30 s (660 forward, 600 backward passes); attacks 12 s",
    }
    assert "hardware" not in facts(report)  # an old run
    alone = facts(replace(report, trained_in={**environment, "threads": 1}))
    assert alone["hardware"] == "AMD EPYC, 1 thread"
    of_evaluation = facts(replace(report, trained_in={}, environment=environment))
    assert not {"trained", "hardware"} & set(of_evaluation)
    strange = {"gpu": ["H100"], "cpu": "AMD EPYC", "threads": "2", "ranks": "two", "time": 3}
    found = facts(replace(report, trained_in=strange))
    assert ("trained" in found, found["hardware"]) == (False, "AMD EPYC")
    clean = tuple(each for each in report.results if each.label == "clean")
    assert "attacks" not in facts(replace(report, results=clean))["cost"]
    text = Page(render_html(report)).text
    assert f"rpat eval {report.path} --check" in text
    assert "T-shirt 60.00 %, Trouser 60.00 %, Pullover 60.00 %, under pgd-20" in text


def test_the_verdict_stands_above_the_accuracies(make_run):
    run = make_run(epochs=1).train([an_epoch(1, 0.7, 0.5)]).save_last(1)
    file = run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    check = {"name": "gradients", "level": "WARN", "reason": "flat", "paper": ""}
    verdict = {"level": "WARN", "findings": [check], "evidence": {"n": 100}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "verdict": verdict}))
    text = Page(render_html(build_report(run.folder))).text
    assert text.index("Some signs that the attacks") < text.index("clean accuracy")
    assert "not checked" not in text
    assert "measured on" not in text  # the same checkpoint, threat and images as the accuracies
    other = replace(an_evaluation(50, {"pgd-20": 10}, threat=Threat("L2", 0.5)), limit=100)
    file = run.evaluate("best", 1, other, "13:00:00")
    file.write_text(json.dumps({**json.loads(file.read_text()), "verdict": verdict}))
    text = Page(render_html(build_report(run.folder))).text
    assert "(measured on best (epoch 1), L2, eps 0.5, 100 images)" in text
