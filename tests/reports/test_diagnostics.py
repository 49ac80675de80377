"""The diagnostics of a run's evaluations: which of them the report holds, and how the page and the
terminal show them."""

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import FakeRun, an_epoch, an_evaluation
from test_report_html import Page
from test_terminal import shown

from rpat_cli.attacks.threat import Threat
from rpat_cli.data.corrupted import STANDARD
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.diagnostics.blocks import HeatMap, LineChart, Pictures
from rpat_cli.diagnostics.corruptions import Corruption, Corruptions
from rpat_cli.diagnostics.eps_curve import EpsCurve, Point
from rpat_cli.diagnostics.loss_surface import LossSurface, Surface
from rpat_cli.diagnostics.optimality import Attacked, Optimality
from rpat_cli.diagnostics.perception import MIXES, analyze_walks
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.reports.diagnostics_page import HeatPicture, chart_of, heat_picture
from rpat_cli.reports.diagnostics_terminal import for_terminal
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.html import render_html
from rpat_cli.reports.plots import Series, line_chart

LINF = Threat("Linf", 0.1)


def a_verdict(level: str = "WARN") -> dict[str, Any]:
    findings = [
        {
            "name": "PGD beats random noise",
            "level": "PASS",
            "reason": "20 images fall.",
            "paper": "Carlini et al.",
        },
        {
            "name": "gradients are there",
            "level": level,
            "reason": "7 <b>images</b>.",
            "paper": "Athalye et al.",
        },
    ]
    evidence = {"threat": {"norm": "Linf", "eps": 0.1}, "n": 200}
    return {"level": level, "findings": findings, "evidence": evidence}


def a_curve(attack: str = "pgd-20", threat: Threat = LINF) -> EpsCurve:
    right = {0.0: 80, 0.05: 60, 0.1: 40, 0.2: 10, 0.4: 0}
    return EpsCurve(
        threat,
        attack,
        tuple(Point(eps, Accuracy(k, 100), int(eps == 0.2)) for eps, k in right.items()),
    )


def an_optimality() -> Optimality:
    attacks = (Attacked("pgd-20", (0.0, 0.1, 0.2), 80, 70), Attacked("fgsm", (0.0, 0.1, inf), 9, 4))
    return Optimality(LINF, 0.4, attacks)


def a_surface(norm: str = "Linf") -> LossSurface:
    plane = Surface(((0.1, 0.6, 1.1), (0.0, 0.5, 1.0), (-0.1, 0.4, 0.9)), 0.125, 0.5, 0.25)
    flat = Surface(((1.0,) * 3,) * 3, 0.0, 0.0, 0.0)
    return LossSurface(Threat(norm, 0.1), 64, (-1.0, 0.0, 1.0), {"ce": plane, "margin": flat})


def a_perception(broken: int = 3) -> Any:
    y = torch.zeros(10, dtype=torch.int64)
    walk = torch.zeros(len(MIXES), 10, 2)
    walk[:, :, 0] = 1 + torch.linspace(0, 1, len(MIXES))[:, None] * torch.arange(1, 11)
    walk[-1, :broken, 1] = 100.0
    return analyze_walks({"adversarial": walk, "random": walk[:1].expand_as(walk)}, y, LINF, 20)


def all_diagnostics() -> dict[str, Any]:
    errors = [Corruption(name, (0.1, 0.2, 0.3, 0.4, 0.55), 0.5) for name in STANDARD]
    return {
        "verdict": a_verdict(),
        "perception": a_perception().to_dict(),
        "eps_curve": a_curve().to_dict(),
        "eps_curve_fmn": a_curve("fmn-100").to_dict(),
        "optimality": an_optimality().to_dict(),
        "loss_surface": a_surface().to_dict(),
        "corruptions": Corruptions("CIFAR-10-C", 100, "ab", tuple(errors), "runs/base").to_dict(),
    }


def add(file: Path, diagnostics: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | diagnostics))


@pytest.fixture
def run(make_run: Any) -> FakeRun:
    """Two epochs, the first of them the best."""
    run: FakeRun = (
        make_run(epochs=2).train([an_epoch(1, 0.7, 0.5), an_epoch(2, 0.6, 0.4)]).save_last(2)
    )
    return run


def test_every_diagnostic_is_on_the_page(run: FakeRun) -> None:
    add(run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60})), all_diagnostics())
    report = build_report(run.folder)
    assert list(report.diagnostics) == list(DIAGNOSTICS)
    assert report.to_dict()["closer_looks"]["verdict"]["result"] == a_verdict()
    html = render_html(report)
    page = Page(html)
    text = " ".join(page.text.split())
    for words in (
        "Diagnostics",
        "WARN Some signs that the attacks may have been fooled",
        "7 <b>images</b>.",  # as text
        "Athalye et al. PASSPGD beats random noise",  # the worst first
        "fmn-100, Linf, best (epoch 1), 100 images, evals/",
        "Missed, 1 case: an image that was broken at a smaller eps",
        "cross-entropy: one eps along the gradient predicts +0.5 and gives +0.25",
        "departs from linear by up to 0.125",
        "clean to half: ",
        "gaussian_noise10.0020.0030.0040.0055.0031.0050.00",
        "mean of the 1510.0020.0030.0040.0055.0031.0050.00",
        "Linf, eps 0.1, best (epoch 1), 64 images",
    ):
        assert words in text, words
    assert "<b>images" not in html
    images = [
        attributes
        for tag, attributes in page.elements
        if tag == "svg" and attributes.get("role") == "img"
    ]
    names = [attributes["aria-labelledby"] for attributes in images]
    assert {
        "surface-loss_surface-1-1",
        "surface-loss_surface-1-2",
        "chart-loss_surface-1-3",
        "chart-eps_curve-1-1",
        "chart-eps_curve_fmn-1-1",
        "chart-perception-1-2",
    } <= {*names}
    assert len(names) == len(set(names))
    assert {*names} <= {attributes.get("id") for tag, attributes in page.elements if tag == "title"}


def test_the_loss_surface_fits_a_terminal_however_large_the_margins() -> None:
    plane = Surface(((-1.366,) * 5,) * 5, 0.0, 0.0, 0.0)
    steep = Surface(((-123.456,) * 5,) * 5, 0.0, 0.0, 0.0)
    shares = (-1.0, -0.5, 0.0, 0.5, 1.0)
    surface = LossSurface(LINF, 64, shares, {"ce": plane, "margin": steep})
    text = shown(for_terminal(surface.section()))
    assert text.count("-1.366") == text.count("-123.5") == 2 * 5


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_each_diagnostic_can_be_the_only_one(run: FakeRun, name: str) -> None:
    add(run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60})), {name: all_diagnostics()[name]})
    report = build_report(run.folder)
    assert list(report.diagnostics) == [name]
    assert "Diagnostics</h2>" in render_html(report)


def test_without_a_diagnostic_there_is_no_section(run: FakeRun) -> None:
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    assert "Diagnostics</h2>" not in render_html(build_report(run.folder))


def test_the_newest_of_each_counts_also_when_it_is_of_some_images(run: FakeRun) -> None:
    add(run.evaluate("best", 1, an_evaluation(80, {}), "12:00:00"), {"verdict": a_verdict("FAIL")})
    small = an_evaluation(40, {}, n=50)
    file = run.evaluate("last", 2, small, "13:00:00")
    add(file, {"verdict": a_verdict("PASS"), "limit": 50})
    add(
        run.evaluate("best", 9, small, "14:00:00"), {"verdict": a_verdict("FAIL")}
    )  # weights that are gone
    add(run.evaluate("last", 2, small, "15:00:00", data="cifar10"), {"verdict": a_verdict("FAIL")})
    report = build_report(run.folder)
    look = report.diagnostics["verdict"]
    assert (look.result.level, look.checkpoint, look.evaluation) == (
        "PASS",
        "last (epoch 2)",
        file.name,
    )
    assert any(
        f"not part of this report: evals/{file.name} (50)" in remark for remark in report.remarks
    )


@pytest.mark.parametrize(
    "damaged", [{}, [], None, "x", {"findings": [{"name": 1}], "evidence": {}}, {"points": [{}]}]
)
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_a_damaged_diagnostic_is_left_out_and_named(run: FakeRun, name: str, damaged: Any) -> None:
    file = run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    add(file, {**all_diagnostics(), name: damaged})
    report = build_report(run.folder)
    assert name not in report.diagnostics
    assert f"the {name} in evals/{file.name} cannot be read and was left out" in report.remarks
    assert report.rows  # its accuracies are read all the same


def test_a_diagnostic_of_a_plugin_that_is_not_there_is_named(run: FakeRun) -> None:
    file = run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    add(file, {"steepness": {"n": 5, "quartiles": [1.0]}, **all_diagnostics()})
    report = build_report(run.folder)
    (said,) = [remark for remark in report.remarks if "steepness" in remark]
    assert said == (
        f"the diagnostic 'steepness' in evals/{file.name} was left out: no plugin that is loaded "
        "has it. Evaluate again with --plugin FILE to see it"
    )
    assert set(report.diagnostics) == set(all_diagnostics())


def test_nothing_was_broken(run: FakeRun) -> None:
    add(
        run.evaluate("best", 1, an_evaluation(80, {})),
        {"perception": a_perception(broken=0).to_dict()},
    )
    assert "cannot tell, too few samples" in Page(render_html(build_report(run.folder))).text


def heat_maps(surface: LossSurface) -> list[HeatMap]:
    (pictures,) = (block for block in surface.section().blocks if isinstance(block, Pictures))
    return [picture for picture in pictures.pictures if isinstance(picture, HeatMap)]


def test_a_heat_map_has_the_gradient_to_the_right_and_the_random_direction_upwards() -> None:
    plane, flat = map(heat_picture, heat_maps(a_surface()))
    by_text = {square.text: square for square in plane.squares}
    lowest, highest = (
        by_text["gradient -1, random direction 1: -0.100"],
        by_text["gradient 1, random direction -1: 1.100"],
    )
    assert (lowest.share, highest.share, plane.low, plane.high) == (0.0, 1.0, "-0.1", "1.1")
    assert (lowest.x, lowest.y) == (HeatPicture.left, HeatPicture.top)
    assert highest.x == pytest.approx(HeatPicture.left + HeatPicture.side - plane.size)
    assert highest.y == pytest.approx(HeatPicture.top + HeatPicture.side - plane.size)
    assert {square.share for square in flat.squares} == {0.0}
    balls = [heat_maps(a_surface(norm))[0].ball for norm in ("Linf", "L2", "L1")]
    assert balls == ["diamond", "circle", "diamond"]


def eps_chart(curve: EpsCurve) -> Any:
    """In the coordinates of the page."""
    (pictures,) = (block for block in curve.section().blocks if isinstance(block, Pictures))
    (chart,) = pictures.pictures
    assert isinstance(chart, LineChart)
    return chart_of(chart)


def test_the_eps_chart_marks_the_threat_and_shows_the_interval() -> None:
    chart = eps_chart(a_curve())
    assert chart is not None
    (line,) = chart.lines
    assert (chart.x_name, chart.mark_name, chart.mark) == ("eps", "the threat", line.dots[2][0])
    outline = [tuple(map(float, point.split(","))) for point in line.band.split()]
    assert len(outline) == 2 * len(line.dots)
    for (x, y), high, low in zip(line.dots, outline[:5], reversed(outline[5:]), strict=True):
        assert high[0] == low[0] == pytest.approx(x)
        assert high[1] <= y <= low[1]
        assert chart.top <= high[1] <= low[1] <= chart.bottom
    assert [tick.label for tick in chart.x_ticks] == ["0", "0.1", "0.2", "0.3", "0.4"]
    ended = EpsCurve(Threat("Linf", 0.8), "pgd-20", a_curve().points)
    assert eps_chart(ended).mark is None


def test_only_epochs_are_whole() -> None:
    points = tuple((k / 4, 1.0) for k in range(5))
    over_epochs = line_chart("t", [Series("a", points)], str)
    over_mix = line_chart("t", [Series("a", points)], str, x_name="mix")
    assert over_epochs is not None
    assert over_mix is not None
    assert {tick.label for tick in over_epochs.x_ticks} == {"0", "1"}
    assert {"0.2", "0.4"} <= {tick.label for tick in over_mix.x_ticks}
    assert over_mix.hovers[1].text.startswith("mix 0.25")


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_the_terminal_shows_each_diagnostic_with_its_own_words(name: str) -> None:
    words = {
        "verdict": ("Can this robustness be trusted? (200 images)", "WARN: Some signs", "[Athalye"),
        "eps_curve": ("Where does the robustness end? (pgd-20, Linf, 100 images)", "40.00"),
        "eps_curve_fmn": ("Where does the robustness end? (fmn-100, Linf, 100 images)", "40.00"),
        "optimality": ("How good are the attacks? (Linf up to 0.4, 3 images)", "best known"),
        "loss_surface": (
            "around the images (Linf, eps 0.1, 64 images)",
            "gradient predicts +0.5 and gives +0.25",
        ),
        "perception": ("(pgd-20, Linf, 10 images)", "clean to half", "defended"),
        "corruptions": ("Corrupted images (CIFAR-10-C, 100 images)", "mean of the 15", "31.00"),
    }
    saved = json.loads(json.dumps(all_diagnostics()[name]))
    result = DIAGNOSTICS[name].result(saved)
    assert json.loads(json.dumps(result.to_dict())) == saved
    text = " ".join(shown(for_terminal(result.section())).split())
    for expected in words[name]:
        assert expected in text, expected
    assert "Carlini" not in text  # the paper of a check that passes
