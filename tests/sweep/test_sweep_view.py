"""What a sweep shows while it runs: the live table, and plain lines in a pipe."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from rpat_cli.cli import console, sweep_session
from rpat_cli.sweep.runner import Runner

TEXT = "recipe: {epochs: 9}\ngrid: {batch_size: [10, 13], optimizer.lr: [0.1]}"


def rendered(runner: Runner) -> str:
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(sweep_session._view(runner))
    return " ".join(screen.export_text().split())


def test_the_live_table_shows_every_trial_and_totals(runner: Callable[..., Runner]) -> None:
    sweep = runner(TEXT)
    seen: list[str] = []
    sweep.on_tick = lambda sweep: seen.append(rendered(sweep))
    assert "batch_size=10, optimizer.lr=0.1, seed 0 waiting" in rendered(sweep)
    assert "2 waiting; left unknown" in rendered(sweep)
    sweep.run()
    assert any(re.search(r"running (\d)/9 50\.0 (?:\1)0\.0", view) for view in seen)  # epoch, clean, robust in per cent
    assert any(re.search(r"running \d/9 50\.0 \d0\.0 \d\.\d s 0\.\d s", view) for view in seen)  # time, left
    assert "seed 0 done 9 70.0 35.0" in rendered(sweep)
    assert "failed: RuntimeError: thirteen [images]" in rendered(sweep)
    assert "1 done, 1 failed; left 0.0 s" in rendered(sweep)


def test_trials_that_do_not_fit_are_counted(runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", Console(height=10, file=io.StringIO()))
    assert "; 16 not shown" in rendered(runner("recipe: {epochs: 1}\nseeds: 20"))


def test_in_a_pipe_each_change_is_a_line(runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lines.append)
    monkeypatch.setattr(console, "err", Console(file=io.StringIO()))
    sweep = runner(TEXT)
    with sweep_session._watching(sweep, quiet=False):
        sweep.run()
    assert lines[0] == "2 trials: 2 waiting"
    [done] = [line for line in lines if "done" in line]
    assert "clean 70.00, pgd-20 35.00" in done
    [failed] = [line for line in lines if "failed" in line.splitlines()[0]]
    assert "thirteen [images]" in failed
    assert len(lines) == 5


def test_trials_that_a_search_stopped_are_not_shown_as_failed(
    runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lines.append)
    monkeypatch.setattr(console, "err", Console(file=io.StringIO()))
    text = "recipe: {epochs: 4, batch_size: 18}\ngrid: {optimizer.lr: [0.1, 0.2]}\nsearch: {asha: {factor: 2}}"
    sweep = runner(text)
    with sweep_session._watching(sweep, quiet=False):
        sweep.run()
    assert "optimizer.lr=0.1, seed 0 pruned 1/4 50.0 10.0" in rendered(sweep)
    assert "1 done, 1 pruned; left 0.0 s" in rendered(sweep)
    assert any("pruned   optimizer.lr=0.1, seed 0: stopped at epoch 1 by asha" in line for line in lines)
    assert "2/2  done     optimizer.lr=0.2, seed 0" in lines[-1]
