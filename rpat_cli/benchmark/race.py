"""Contestants take turns, so that whatever else the machine does slows all of them."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

TURN = 0.2
"""Seconds that a turn takes at least: shorter ones measure the clock."""

MOST_STEPS = 50
"""Of one turn."""


OnTurn = Callable[[str], None]
"""Gets a line whenever a contestant begins."""


def silent(_: str) -> None:
    """Says nothing."""


class Contestant(Protocol):
    """`name` is its key in results, `device` where it computes."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    def run(self, steps: int) -> None:
        """Do so many units of work."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of `n` values."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high, len(values))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Times:
    """Of one contestant, a value for each round: seconds of the clock and of the processor for one
    unit of work. `peak_memory`: bytes above what was held before its turn; None where unknown."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_memory: int | None = None

    def over(self, other: "Times") -> Spread:
        """This one's time in units of the other's, round by round."""
        return Spread.of([a / b for a, b in zip(self.seconds, other.seconds, strict=True)])

    def cpu_over(self, other: "Times") -> Spread:
        """The same by the processor's time, which other programs hardly change."""
        pairs = zip(self.cpu_seconds, other.cpu_seconds, strict=True)
        return Spread.of([a / max(b, 1e-9) for a, b in pairs])


def race(
    contestants: Sequence[Contestant],
    *,
    seconds: float,
    least: int,
    most_steps: int = MOST_STEPS,
    warm_up: bool = True,
    on_turn: OnTurn = silent,
) -> dict[str, Times]:
    """Rounds in which each contestant has a turn: at least `least`, and none begun after `seconds`.

    In a round of its own before, nothing counts: caches fill, and kernels are chosen. Every other
    round goes backward, so that nobody always comes after the same one.
    """
    times = {each.name: Times() for each in contestants}
    steps = dict.fromkeys(times, 1)
    if warm_up:
        for each in contestants:
            on_turn(f"warming up: {each.name}")
            took, _, times[each.name].peak_memory = _turn(each, 1)
            took, _, _ = _turn(each, 1) if took < TURN else (took, 0.0, None)
            steps[each.name] = max(1, min(most_steps, math.ceil(TURN / took)))
    began, done = time.perf_counter(), 0
    while done < least or time.perf_counter() - began < seconds:
        for each in contestants if done % 2 == 0 else contestants[::-1]:
            on_turn(f"round {done + 1}: {each.name}")
            took, cpu, peak = _turn(each, steps[each.name])
            own = times[each.name]
            own.seconds.append(took)
            own.cpu_seconds.append(cpu)
            known = [value for value in (own.peak_memory, peak) if value is not None]
            own.peak_memory = max(known, default=None)
        done += 1
    return times


def _turn(contestant: Contestant, steps: int) -> tuple[float, float, int | None]:
    """Seconds of the clock and of the processor for one unit of work, and the peak memory."""
    device = contestant.device
    memory = _Memory(device)
    _wait_for(device)
    began, cpu = time.perf_counter(), time.process_time()
    contestant.run(steps)
    _wait_for(device)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return took / steps, cpu / steps, memory.peak()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


class _Memory:
    """The most memory that is taken from now on above what is held now: of the GPU, or of this
    process where Linux counts that."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before: int | None = torch.cuda.memory_allocated(device)
            return
        self._before = _of_process("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value so far
        except OSError:
            self._before = None

    def peak(self) -> int | None:
        if self._before is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        highest = _of_process("VmHWM")
        return None if highest is None else max(0, highest - self._before)


def _of_process(key: str) -> int | None:
    """Bytes, of a line of /proc/self/status."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0]) * 1024
    except OSError:  # not Linux
        pass
    return None


def busy(times: Times, threads: int) -> str:
    """What to say where other programs took part of the processor; nothing otherwise.

    For work that keeps all `threads` busy.
    """
    share = sum(times.cpu_seconds) / max(sum(times.seconds) * threads, 1e-9)
    if share > 0.8 or not hasattr(os, "getloadavg"):
        return ""
    return (
        f"the machine was busy: the processes got {share:.0%} of {threads} cores (load "
        f"{os.getloadavg()[0]:.1f}). Ratios by processor time are the ones to read."
    )
