"""What a sweep shows while it runs: the live table, and plain lines in a pipe."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_trial import epoch_record
from rich.console import Console

from rpat_cli.cli import console, sweep_list
from rpat_cli.cli.sweep_list import list_trials
from rpat_cli.cli.sweep_view import view, watching
from rpat_cli.errors import DivergenceError
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.estimate import Estimate
from rpat_cli.sweep.runner import SweepRunner, TrialState

TEXT = "recipe: {epochs: 9}\ngrid: {batch_size: [10, 13], optimizer.lr: [0.1]}"


def rendered(runner: SweepRunner) -> str:
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(view(runner))
    return " ".join(screen.export_text().split())


def test_the_live_table_shows_every_trial_and_totals(runner: Callable[..., SweepRunner]) -> None:
    sweep = runner(TEXT)
    assert "batch_size=10, optimizer.lr=0.1, seed 0 waiting" in rendered(sweep)
    assert "2 waiting; left unknown" in rendered(sweep)
    status = next(iter(sweep.statuses.values()))
    status.folder.run.path.mkdir(parents=True)
    validation = {"clean_acc": 0.5, "robust_acc": 0.3}
    records = [{**epoch_record(epoch, validation), "seconds": 0.1} for epoch in (1, 2, 3)]
    lines = [json.dumps(record) + "\n" for record in records]
    status.folder.run.metrics.write_text("".join(lines))
    status.state, status.began = TrialState.RUNNING, time.monotonic() - 100
    assert "running 3/9 validation 50.0 30.0 1 min 40 s 0.6 s" in rendered(
        sweep
    )  # epoch, images, clean, robust, time, left
    status.state, status.began = TrialState.WAITING, 0.0
    sweep.run()
    assert "seed 0 done 9 test set 70.0 35.0" in rendered(sweep)
    assert "failed: RuntimeError: thirteen [images]" in rendered(sweep)
    assert "1 done, 1 failed; left 0.0 s" in rendered(sweep)


def test_a_dry_run_lists_what_it_would_cost_and_why_that_is_unknown(
    runner: Callable[..., SweepRunner],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)

    def estimated(recipe: Recipe) -> Estimate:
        if recipe.batch_size == 13:
            raise DivergenceError("ce is nan")
        return Estimate(3, 2, 10, 4, 36, 0.5, 18.0, 0, 0, "cpu", "fp32", True, Path())

    monkeypatch.setattr(sweep_list, "estimate", estimated)
    search = runner(TEXT).search
    list_trials(search, 2, cost=True, as_json=False)
    listed = capsys.readouterr().out
    assert (
        "36 steps of 3 forward and 2 backward passes, about 18 s before the final report" in listed
    )
    assert "cost unknown: ce is nan" in listed
    assert said[-1].startswith(
        "about 18 s to train the unfinished trials (without 1 of unknown cost), 2 at a time"
    )
    list_trials(search, 2, cost=True, as_json=True)
    costs = [item["cost"] for item in json.loads(capsys.readouterr().out)]
    assert costs == [{"forward": 108, "backward": 72, "seconds": 18.0}, {"unknown": "ce is nan"}]
    list_trials(search, 2, cost=False, as_json=False)
    assert said[-1].startswith("add --cost for the passes and the time")


def test_trials_that_do_not_fit_are_counted(
    runner: Callable[..., SweepRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "err", Console(height=10, file=io.StringIO()))
    assert "; 16 not shown" in rendered(runner("recipe: {epochs: 1}\nseeds: 20"))


def test_in_a_pipe_each_change_is_a_line(
    runner: Callable[..., SweepRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lines.append)
    monkeypatch.setattr(console, "err", Console(file=io.StringIO()))
    sweep = runner(TEXT)
    with watching(sweep, quiet=False):
        sweep.run()
    assert lines[0] == "2 trials: 2 waiting"
    [done] = [line for line in lines if "done" in line]
    assert "test: clean 70.00, pgd-20 35.00" in done
    [failed] = [line for line in lines if "failed" in line.splitlines()[0]]
    assert "thirteen [images]" in failed
    assert len(lines) == 5


def test_trials_that_a_search_stopped_are_not_shown_as_failed(
    runner: Callable[..., SweepRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lines.append)
    monkeypatch.setattr(console, "err", Console(file=io.StringIO()))
    text = (
        "recipe: {epochs: 4, batch_size: 18}\ngrid: {optimizer.lr: [0.1, 0.2]}\nsearch: {asha: "
        "{factor: 2}}"
    )
    sweep = runner(text)
    with watching(sweep, quiet=False):
        sweep.run()
    assert "optimizer.lr=0.1, seed 0 pruned 1/4 validation 50.0 10.0" in rendered(sweep)
    assert "1 done, 1 pruned; left 0.0 s" in rendered(sweep)
    assert any(
        "pruned   optimizer.lr=0.1, seed 0: stopped at epoch 1 by asha" in line for line in lines
    )
    assert "2/2  done     optimizer.lr=0.2, seed 0" in lines[-1]
