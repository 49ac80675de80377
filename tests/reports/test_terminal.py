"""Tables carry the numbers, fit the terminal, and need no color."""

import io
from dataclasses import replace

import pytest
from fake_runs import NAMES, an_epoch, an_evaluation
from rich.console import Console

from rpat_cli.evaluation.audit import Audit, Look
from rpat_cli.evaluation.statistics import mean_acc, nrr, wilson_interval
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.html import render_html
from rpat_cli.reports.terminal import (
    evaluation_remarks,
    evaluation_summary,
    evaluation_table,
    remarks_text,
    report_table,
)
from rpat_cli.text import DASH, compact, duration, percent

FULL = {
    "noise": 79,
    "fgsm": 70,
    "bim-10": 66,
    "mim-10": 65,
    "pgd-20": 60,
    "pgd-50x10": 58,
    "cw-pgd-20": 59,
}


def shown(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(renderable)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    assert "…" not in text
    return text


def line_of(text, word):
    """The cells of the first line that begins with `word`."""
    return next(line for line in text.splitlines() if line.strip().startswith(word)).split("  ")


@pytest.fixture
def run(make_run):
    return make_run(epochs=110).train([an_epoch(1, 0.6, 0.4), an_epoch(110, 0.6, 0.3)])


@pytest.mark.parametrize("width", [80, 100])
def test_report_table(run, width):
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60, "autoattack": 40}))
    run.evaluate("last", 110, an_evaluation(90, {"pgd-20": 55}))
    text = shown(report_table(build_report(run.folder)), width)
    assert [cell.strip() for cell in line_of(text, "best") if cell.strip()] == [
        *("best (epoch 1)", "80.00", "60.00", "40.00", "60.00", "53.33")
    ]
    assert [cell.strip() for cell in line_of(text, "last") if cell.strip()] == [
        *("last (epoch 110)", "90.00", "55.00", DASH, DASH, DASH)
    ]
    assert f"30.9{DASH}49.8" in text
    assert "Linf, eps 0.1" in text
    assert "100 test images" in text


def test_many_attacks_turn_the_table(run):
    run.evaluate("best", 1, an_evaluation(80, {**FULL, "autoattack": 40}))
    text = shown(report_table(build_report(run.folder)))
    first = [
        line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()
    ]
    order = [word for word in first if word[0].isalpha()]
    assert order == ["best", "clean", *FULL, "autoattack", "Mean", "NRR"]


def test_same_weights_are_marked(make_run):
    run = make_run(epochs=1).train([an_epoch(1, 0.6, 0.4)])
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    text = shown(report_table(build_report(run.folder)))
    assert "same weights" in text
    assert "NRR" not in text


def test_nothing_evaluated(run):
    assert "rpat eval" in shown(report_table(build_report(run.folder)))


@pytest.mark.parametrize("width", [80, 100])
def test_evaluation_table(width):
    evaluation = an_evaluation(
        80, {**FULL, "autoattack": 40}, flags=("odd [gradients]",), notes=("a note",)
    )
    text = shown(evaluation_table(evaluation), width)
    assert text.split("autoattack", 1)[1].split()[:8] == [
        "40.00",
        f"30.9{DASH}49.8",
        "40",
        "12",
        "s",
        "2k",
        "/",
        "1k",
    ]
    assert text.split("worst case", 1)[1].split()[:3] == ["40.00", f"30.9{DASH}49.8", "40"]
    assert text.split("clean", 1)[1].split()[0] == "80.00"
    remarks = evaluation_remarks(evaluation)
    assert remarks == ["autoattack: odd [gradients]", "autoattack: a note"]
    assert "! autoattack: odd [gradients]\n" in shown(remarks_text(remarks))


def test_worst_case_is_over_all_attacks():
    """Each attack breaks other samples: together they leave less than either."""
    from dataclasses import replace

    evaluation = an_evaluation(100, {"pgd-20": 60, "fgsm": 60})
    flipped = replace(
        evaluation.results[2], correct_after=evaluation.results[2].correct_after.flip(0)
    )
    evaluation = replace(evaluation, results=(*evaluation.results[:2], flipped))
    assert shown(evaluation_table(evaluation)).split("worst case", 1)[1].split()[0] == "20.00"


def test_the_worst_class_and_calibration_are_below_the_table():
    # The first 32 images are right, and label i is i modulo 10: labels 0 and 1 keep 4 of 10, the
    # others 3.
    evaluation = an_evaluation(80, {"fgsm": 70, "autoattack": 32})
    text = shown(evaluation_summary(evaluation, NAMES))
    interval = DASH.join(f"{100 * end:.1f}" for end in wilson_interval(3, 10))
    assert f"worst class  Pullover: 30.00 ({interval}) in the worst case, 80.00 clean" in text
    # 0.9 confident of what is right, 0.5 of what is wrong
    assert "ECE          18.00 clean, 37.20 under autoattack" in text
    assert "worst class  class 2: 30.00" in shown(evaluation_summary(evaluation, ()))


def test_old_and_unattacked_evaluations_have_a_shorter_summary():
    from dataclasses import replace

    evaluation = an_evaluation(80, {})
    assert (
        shown(evaluation_summary(evaluation, NAMES)).split("\n")[1].strip()
        == "ECE          18.00 clean"
    )
    text = shown(evaluation_summary(replace(evaluation, clean_confidence=None), NAMES))
    assert text.strip() == f"worst class  T-shirt: 80.00 (49.0{DASH}94.3)"


def test_only_clean():
    text = shown(evaluation_table(an_evaluation(80, {})))
    assert "80.00" in text
    assert "worst" not in text


def test_scores_in_closed_form():
    # RPAT's table: Consistency + RPAT on CIFAR-10, clean 84.12, AutoAttack 48.98.
    assert mean_acc(0.8412, 0.4898) == pytest.approx(0.6655)
    assert nrr(0.8412, 0.4898) == pytest.approx(1 / ((1 / 0.8412 + 1 / 0.4898) / 2))
    assert nrr(0.7, 0.7) == pytest.approx(0.7)
    assert nrr(0.9, 0.0) == nrr(0.0, 0.0) == 0.0


def test_numbers_for_people():
    assert [percent(0.51044), percent(1.0), percent(None), percent(0.5, 1)] == [
        "51.04",
        "100.00",
        DASH,
        "50.0",
    ]
    spans = [duration(s) for s in (0.44, 37.2, 59.7, 312, 3599.7, 11100, 86399.6, 187_200)]
    assert spans == [
        "0.4 s",
        "37 s",
        "1 min 00 s",
        "5 min 12 s",
        "1 h 00 min",
        "3 h 05 min",
        "1 d 0 h",
        "2 d 4 h",
    ]
    assert [compact(n) for n in (0, 999, 1000, 1_234_567, 8 * 10**9)] == [
        "0",
        "999",
        "1k",
        "1.23M",
        "8G",
    ]


def test_an_audit_is_said_in_table_and_report(run):
    audit = Audit(0.25, 0.95, 100, 40, 20, 1, 2, 0, tuple(range(20)), (Look(20, 1, 0.03),))
    evaluation = an_evaluation(80, {"pgd-20": 40, "audit:0.25": 39})
    first, last = evaluation.results[-2:]
    evaluation = replace(evaluation, results=(first, replace(last, audit=audit)))
    words = "AutoAttack is at most 2.00 points lower (95 %)"
    assert words in shown(evaluation_summary(evaluation, NAMES))
    run.evaluate("best", 1, evaluation)
    report = build_report(run.folder)
    assert f"audit:0.25 on best (epoch 1): {words}" in shown(report_table(report))
    assert f"audit:0.25 on best (epoch 1): {words}" in render_html(report)
    (result,) = [each for each in report.to_dict()["results"] if each["label"] == "audit:0.25"]
    assert result["audit"]["gap"] == 0.02
    assert result["audit"]["statement"].endswith(
        "it broke 1 of 20 images drawn at random from the 40 that the other attacks left. This "
        "bounds the gap to AutoAttack, not to the truth: a stronger attack may break more"
    )
