"""Labels of a Pareto plot, placed where they cover neither points nor one another."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rpat_cli.reports.pareto_picture import Box, Frame, Label, Mark

LETTER, BOLD, LINE = 6.9, 7.5, 15.0
"""The approximate width of a letter, and of a bold one on the front, and the height of a line."""

DISTANCES = (10.0, 17.0, 26.0, 38.0, 54.0, 74.0)
"""How far from its point a label may be; from the third on a line leads to it."""

DIRECTIONS = 16

MAX_LETTERS = 32
"""Longer names are cut."""

PADDING = 2.0

CROSSED, COVERED, TAKEN = 40.0, 120.0, 1000.0
"""The cost of a label that crosses an error bar; covers a point; overlaps another label, or leaves
the frame."""


def place_labels(frame: Frame, marks: Sequence[Mark], named: Mapping[str, Mark]) -> Iterator[Label]:
    """Labels for the marks in `named`, the first ones first. A label without room is left out: the
    mark still has its tooltip."""
    room = _Room(frame, marks)
    for name, mark in named.items():
        text = (
            name
            if len(name) <= MAX_LETTERS
            else f"{name[: MAX_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        )
        width = (BOLD if mark.front else LETTER) * len(text) + 2 * PADDING
        cost, box, is_far = min(room.places(width, mark))
        # Names on the front are the message of the plot: they may cover other points.
        if cost < (TAKEN if mark.front else COVERED):
            room.taken.append(box)
            leader = _leader(mark, box) if is_far else None
            yield Label(text, box[0] + PADDING, box[3] - 4, mark.color, mark.front, box, leader)


class _Room:
    """What labels must not hide: points, then error bars and the front, and above all the labels in
    `taken`."""

    def __init__(self, frame: Frame, marks: Sequence[Mark]) -> None:
        self._frame = frame
        self._points = [(mark.x - 7, mark.y - 7, mark.x + 7, mark.y + 7) for mark in marks]
        self._lines: list[Box] = []
        for mark in marks:
            self._lines += mark.bars
        front = sorted((mark for mark in marks if mark.front), key=lambda mark: mark.x)
        for a, b in pairwise(front):
            for k in range(1, 12):
                x, y = a.x + (b.x - a.x) * k / 12, a.y + (b.y - a.y) * k / 12
                self._lines.append((x, y, x, y))
        self.taken: list[Box] = []

    def places(self, width: float, mark: Mark) -> Iterator[tuple[float, Box, bool]]:
        """The possible places of a mark's label: (cost, box, whether it needs a leader)."""
        points, lines, taken = map(_as_array, (self._points, self._lines, self.taken))
        left, top, right, bottom = self._frame
        for ring, distance in enumerate(DISTANCES):
            for step in range(DIRECTIONS):
                angle = 2 * math.pi * step / DIRECTIONS
                dx, dy = math.cos(angle), math.sin(angle)
                # The side of the box that faces the point is `distance` away from it, or from the
                # ring around it; at a slant its corner is, which keeps it off the error bars.
                away = distance + 3 * mark.front
                x = mark.x + dx * away + _shift(dx) * width / 2
                y = mark.y + dy * away + _shift(dy) * LINE / 2
                box = (x - width / 2, y - LINE / 2, x + width / 2, y + LINE / 2)
                outside = box[0] < left or box[1] < top or box[2] > right or box[3] > bottom
                cost = TAKEN * (outside + _overlaps(box, taken))
                cost += COVERED * _overlaps(box, points) + CROSSED * _overlaps(box, lines)
                # Nearer is slightly better, and at the side is easier to read than above or below.
                yield cost + distance + 2 * abs(dy), box, ring > 1


def _shift(part: float) -> float:
    """How far a box moves to the side, as a share of half its size: all of it from 42 degrees."""
    return max(-1.0, min(1.0, 1.5 * part))


def _as_array(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Boxes as an array (N, 4), also without any."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _overlaps(box: Box, others: NDArray[np.float64]) -> int:
    """How many of the others (N, 4) a box touches."""
    apart = (
        (others[:, 0] > box[2])
        | (others[:, 2] < box[0])
        | (others[:, 1] > box[3])
        | (others[:, 3] < box[1])
    )
    return len(others) - int(apart.sum())


def _leader(mark: Mark, box: Box) -> Box:
    """A line from the point to the nearest place of the box."""
    x = min(max(mark.x, box[0]), box[2])
    y = min(max(mark.y, box[1] + 3), box[3] - 3)
    return mark.x, mark.y, x, y
