"""The front, the positions of the points, and that labels keep clear of one another."""

import itertools
import random

import pytest

from rpat_cli.reports.html import template
from rpat_cli.reports.pareto import MAX_NAMES, Point, certain_front, pareto_front, pareto_plot
from rpat_cli.reports.pareto_picture import MAIN, SIDE, Panel, Plot


def point(x: float, y: float, name: str = "", kind: str = "best", **more: object) -> Point:
    name = name or f"{x:g}/{y:g}"
    return Point(name, kind, more.pop("family", name), more.pop("baseline", False), x, y, **more)  # type: ignore[arg-type]


def plot_of(points: list[Point]) -> Plot:
    return pareto_plot(points, "clean accuracy", "accuracy under pgd-20")


def at(panel: Panel, x: float, y: float) -> tuple[float, float]:
    """Where a point has to stand, going by the first and the last tick of each axis."""

    def place(ticks: tuple, value: float) -> float:
        first, last = ticks[0], ticks[-1]
        low, high = float(first.label) / 100, float(last.label) / 100
        return first.at + (value - low) / (high - low) * (last.at - first.at)

    return place(panel.x_ticks, x), place(panel.y_ticks, y)


def test_the_front_is_what_no_other_point_beats() -> None:
    a, b, c = point(0.7, 0.6), point(0.8, 0.5), point(0.9, 0.1)
    assert pareto_front([point(0.8, 0.4), c, a, point(0.7, 0.5), b, point(0.9, 0.05)]) == [a, b, c]


def test_the_front_agrees_with_its_definition() -> None:
    generator = random.Random(0)
    for _ in range(50):
        points = [
            point(generator.randint(0, 6) / 6, generator.randint(0, 6) / 6, str(k))
            for k in range(12)
        ]
        unbeaten = {
            p.name
            for p in points
            if not any(o.x >= p.x and o.y >= p.y and (o.x > p.x or o.y > p.y) for o in points)
        }
        front = pareto_front(points)
        assert {p.name for p in front} == unbeaten
        assert [p.x for p in front] == sorted(p.x for p in front)


def test_points_and_error_bars_stand_where_the_axes_say() -> None:
    plot = plot_of([point(0.7, 0.6, x_sd=0.02, y_sd=0.01), point(0.8, 0.5), point(0.75, 0.48)])
    (panel,) = plot.panels
    (mark,) = (mark for mark in panel.marks if mark.bars)
    assert (mark.x, mark.y) == pytest.approx(at(panel, 0.7, 0.6), abs=0.1)
    (left, right), (top, bottom) = (0.68, 0.72), (0.61, 0.59)
    across, upright = mark.bars
    assert across == pytest.approx((*at(panel, left, 0.6), *at(panel, right, 0.6)), abs=0.1)
    assert upright == pytest.approx((*at(panel, 0.7, top), *at(panel, 0.7, bottom)), abs=0.1)
    assert [mark.front for mark in sorted(panel.marks, key=lambda mark: mark.x)] == [
        True,
        False,
        True,
    ]
    assert panel.front.split() == [
        f"{x:g},{y:g}" for x, y in sorted((m.x, m.y) for m in panel.marks if m.front)
    ]


def test_a_ring_needs_more_than_seed_noise() -> None:
    apart = [point(0.7, 0.6, x_sd=0.01, y_sd=0.01), point(0.8, 0.5, x_sd=0.01, y_sd=0.01)]
    near = point(0.785, 0.515, x_sd=0.01, y_sd=0.01)
    same = point(0.79, 0.49, "0.8/0.5", "last", x_sd=0.01, y_sd=0.01)
    assert certain_front(apart) == apart
    assert certain_front([*apart, same]) == apart  # another checkpoint of the same model
    assert certain_front([*apart, near]) == apart[:1]
    (panel,) = plot_of([*apart, near]).panels
    assert [(mark.front, mark.ring) for mark in sorted(panel.marks, key=lambda mark: mark.x)] == [
        (True, True),
        (True, False),
        (True, False),
    ]


def test_labels_keep_off_the_error_bars() -> None:
    few = [point(0.7 + k / 50, 0.6 - k / 50, x_sd=0.02, y_sd=0.02) for k in range(4)]
    (panel,) = plot_of(few).panels
    assert len(panel.labels) == len(few)
    bars = [bar for mark in panel.marks for bar in mark.bars]
    for left, top, right, bottom in (label.box for label in panel.labels):
        for x1, y1, x2, y2 in bars:
            assert x1 > right or x2 < left or y1 > bottom or y2 < top


def test_a_group_far_above_the_rest_has_a_frame_of_its_own() -> None:
    upper = [point(0.70 + k / 100, 0.60 - k / 100) for k in range(4)]
    plot = plot_of([point(0.9, 0.05), *upper, point(0.88, 0.06)])
    main, side = plot.panels
    assert (main.frame, side.frame) == (MAIN, SIDE)
    assert (len(main.marks), len(side.marks)) == (4, 6)
    assert {label.text for label in side.labels} == {"0.9/0.05", "0.88/0.06"}
    assert {label.text for label in main.labels} == {p.name for p in upper}
    left, top, right, bottom = side.enlarged
    inside = [left < mark.x < right and top < mark.y < bottom for mark in side.marks]
    assert inside.count(True) == 4


def test_two_points_above_a_gap_are_no_group() -> None:
    plot = plot_of([point(0.7, 0.6), point(0.71, 0.61), point(0.9, 0.05)])
    assert len(plot.panels) == 1


def test_a_single_point_and_equal_points_are_drawn() -> None:
    for points in ([point(0.5, 0.5)], [point(0.5, 0.5, "a"), point(0.5, 0.5, "b")]):
        (panel,) = plot_of(points).panels
        assert len(panel.marks) == len(points)
        assert all(mark.front for mark in panel.marks)


def crowd(count: int) -> list[Point]:
    generator = random.Random(3)
    found = []
    for k in range(count):
        x, y = generator.gauss(0.75, 0.01), generator.gauss(0.6, 0.01)
        family = f"method {k // 2}"
        name = family + (" + ra" if k % 2 else "")
        for kind, shift in (("best", 0.0), ("last", 0.004)):
            found.append(
                point(
                    x + shift, y - shift, name, kind, family=family, baseline=k % 2 == 0, x_sd=0.003
                )
            )
    return found


def test_labels_keep_clear_of_one_another_and_within_the_frame() -> None:
    (panel,) = plot_of(crowd(16)).panels
    assert len(panel.labels) >= 14
    assert len({label.text for label in panel.labels}) == len(panel.labels)
    for label in panel.labels:
        left, top, right, bottom = label.box
        assert panel.frame[0] <= left < right <= panel.frame[2]
        assert panel.frame[1] <= top < bottom <= panel.frame[3]
    for a, b in itertools.combinations((label.box for label in panel.labels), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_of_many_names_those_of_the_front_are_written() -> None:
    points = crowd(MAX_NAMES + 10)
    (panel,) = plot_of(points).panels
    front = {p.name for p in pareto_front(points)}
    assert {label.text for label in panel.labels} <= front
    assert all(label.front for label in panel.labels)
    assert len(panel.marks) == len(points)


def test_a_baseline_is_hollow_and_shares_its_color_and_kinds_have_shapes() -> None:
    (panel,) = plot_of(crowd(4)).panels
    looks = {(mark.color, mark.hollow, mark.shape) for mark in panel.marks}
    assert looks == {
        (color, hollow, shape) for color in (0, 1) for hollow in (True, False) for shape in (0, 1)
    }
    assert len(panel.links) == 4  # best and last of each name


def test_long_names_are_cut() -> None:
    (panel,) = plot_of([point(0.5, 0.5, "x" * 200)]).panels
    assert [len(label.text) for label in panel.labels] == [32]


def test_the_picture_is_self_contained() -> None:
    from xml.etree import ElementTree

    text = template("pareto.svg.j2").render(
        plot=plot_of([point(0.5, 0.5, "a<b & c", tooltip="a<b")]), reason=""
    )
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "a<b & c" in "".join(root.itertext())
    assert "prefers-color-scheme" in text
    assert "var(" not in text
    assert "url(" not in text
    assert "href" not in text
