"""What a log hears of a long evaluation."""

import pytest

from rpat_cli.evaluation.parallel.chunks import Progress
from rpat_cli.runs import progress_lines


def test_a_long_attack_speaks_now_and_then_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = [100.0]
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: clock[0])
    lines = progress_lines.EvalLines(said.append)
    for seconds, done in ((40, 0), (20, 100), (15, 200), (10, 300), (25, 400), (1, 500)):
        clock[0] += seconds
        left = 90.0 * (500 - done) if done else None
        lines(Progress("autoattack", "square", 4, 4, 0, 5, done, 500, 0.5, 12.0, None, left))
    assert [" ".join(line.split()) for line in said] == [
        "autoattack 4/4 square robust 50.00 % so far, 200 of 500 images all done in about 7 h 30 "
        "min",
        "autoattack 4/4 square robust 50.00 % so far, 400 of 500 images all done in about 2 h 30 "
        "min",
        "autoattack 4/4 square robust 50.00 % after 12 s",
    ]
