"""Contestants take turns; what is made of their times."""

import time
from typing import Any

import pytest
import torch

from rpat_cli.benchmark import race as racing
from rpat_cli.benchmark.race import Spread, Times, busy, race

CPU = torch.device("cpu")


class Counted:
    """Writes down whose turn it is."""

    device = CPU

    def __init__(self, name: str, turns: list[str], takes: float = 0.0) -> None:
        self.name, self.turns, self.takes = name, turns, takes

    def run(self, steps: int) -> None:
        self.turns += [self.name] * steps
        time.sleep(self.takes)


def test_they_take_turns_and_every_other_round_goes_backward() -> None:
    turns: list[str] = []
    contestants = [Counted(name, turns) for name in "abc"]
    times = race(contestants, seconds=0, least=3, most_steps=1, warm_up=False)
    assert "".join(turns) == "abccbaabc"
    assert {name: len(found.seconds) for name, found in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_is_quick_takes_many_steps_a_turn_and_warming_up_does_not_count() -> None:
    turns: list[str] = []
    quick, slow = Counted("quick", turns), Counted("slow", turns, racing.TURN)
    times = race([quick, slow], seconds=0, least=2)
    assert turns.count("slow") == 1 + 2
    assert 2 + 2 < turns.count("quick") <= 2 + 2 * racing.MOST_STEPS
    assert len(times["slow"].seconds) == 2
    assert times["slow"].seconds[0] >= racing.TURN > times["quick"].seconds[0]


def test_rounds_begin_until_the_time_is_over() -> None:
    turns: list[str] = []
    race([Counted("a", turns, 0.02)], seconds=0.1, least=1, most_steps=1, warm_up=False)
    assert 2 <= len(turns) <= 6


def test_medians_quartiles_and_ratios_of_the_same_round() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)
    # Both were slowed threefold in the second round: the ratio is 2 in each.
    one, other = Times([2.0, 6.0], [1.0, 1.5]), Times([1.0, 3.0], [1.0, 1.0])
    assert one.over(other) == Spread(2.0, 2.0, 2.0, 2)
    assert one.cpu_over(other).median == 1.25


def test_a_busy_machine_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (9.25, 0, 0))
    assert busy(Times([1.0, 1.0], [1.9, 1.9]), threads=2) == ""
    assert "got 25% of 2 cores (load 9.2)" in busy(Times([1.0], [0.5]), threads=2)


def test_peak_memory_is_what_a_turn_takes_on_top(tmp_path: Any) -> None:
    class Large(Counted):
        def run(self, steps: int) -> None:
            torch.ones(50 * 2**20, dtype=torch.uint8)

    times = race([Counted("none", []), Large("large", [])], seconds=0, least=1, most_steps=1)
    if times["large"].peak_memory is None:
        pytest.skip("only Linux says what a process holds at most")
    assert 45 * 2**20 < times["large"].peak_memory < 200 * 2**20
    assert times["none"].peak_memory < 10 * 2**20
