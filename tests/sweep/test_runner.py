"""A sweep goes on after anything: failing trials, signals, SIGKILL at any moment, a full disk."""

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from rpat_cli.errors import Interrupted, RunFolderError
from rpat_cli.records import files
from rpat_cli.sweep.engines.base import Job
from rpat_cli.sweep.engines.local import Local, local_slots
from rpat_cli.sweep.runner import INTERVAL, SweepRunner, TrialState
from rpat_cli.sweep.table import to_json

Make = Callable[..., SweepRunner]

GRID = """
recipe: {epochs: 2}
grid: {optimizer.lr: [0.1, 0.2, 0.3]}
seeds: 2
baseline: {optimizer.lr: 0.1}
"""


def bad(batch_size: int) -> str:
    """A sweep with one good trial and one that misbehaves."""
    return f"recipe: {{epochs: 1}}\ngrid: {{batch_size: [10, {batch_size}]}}"


def history(folder: Path) -> dict[str, list[str]]:
    return {
        path.parent.name: path.read_text().splitlines()
        for path in folder.glob("trials/*/history.txt")
    }


def states(runner: SweepRunner) -> list[TrialState]:
    return [status.state for status in runner.statuses.values()]


def test_the_table_holds_what_the_trials_found(runner: Make) -> None:
    first = runner(GRID)
    table = first.run()
    assert states(first) == [TrialState.DONE] * 6
    row = {(row.label, row.checkpoint): row for row in table.rows}["optimizer.lr=0.3", "best"]
    assert row.stats["clean"].mean == pytest.approx(0.495)
    assert row.stats["clean"].sd == pytest.approx(0.01 / 2**0.5)
    assert row.differences["clean"].mean == pytest.approx(-0.2)
    assert json.loads((first.folder / "table.json").read_text()) == json.loads(to_json(table))


def test_a_second_call_runs_nothing_and_a_new_value_runs_only_itself(runner: Make) -> None:
    first = runner(GRID)
    first.run()
    before = history(first.folder)
    assert runner(GRID).run() == first.table()
    assert history(first.folder) == before
    more = runner(
        GRID.replace("0.3]", "0.3, 0.4]") + "\nzip: {batch_size: [50]}"
    )  # 50 is what it was
    more.run()
    after = history(first.folder)
    assert len(after) == 8
    assert {name: lines for name, lines in after.items() if name in before} == before


def test_a_changed_recipe_runs_again(runner: Make) -> None:
    runner(GRID).run()
    changed = runner(GRID.replace("epochs: 2", "epochs: 1"))
    changed.run()
    assert len(history(changed.folder)) == 12


@pytest.mark.parametrize(
    ("batch_size", "reason"),
    [
        (13, "RuntimeError: thirteen [images]"),
        (14, "killed by SIGKILL (out of memory, or killed by hand)"),
        (15, "No space left on device: 'last.pt'"),
        (17, "ended without a complete report"),
    ],
)
def test_a_failing_trial_leaves_the_others_and_says_why(
    runner: Make, batch_size: int, reason: str
) -> None:
    sweep = runner(bad(batch_size))
    table = sweep.run()
    assert states(sweep) == [TrialState.DONE, TrialState.FAILED]
    assert [row.n for row in table.rows] == [1, 1, 0, 0]
    [(title, message)] = table.failures.items()
    assert title == f"batch_size={batch_size}, seed 0"
    assert reason in message
    assert reason in (sweep.folder / "table.md").read_text()


def test_the_last_log_lines_are_those_of_the_last_attempt(runner: Make) -> None:
    sweep = runner(bad(14))
    [trial] = [status for status in sweep.statuses.values() if status.trial.recipe.batch_size == 14]
    trial.folder.path.mkdir(parents=True)
    trial.folder.log.write_text("$ an earlier command\nan earlier failure\n")
    sweep.run()
    assert "earlier" not in trial.reason


def test_failed_trials_are_tried_again_as_often_as_asked(runner: Make) -> None:
    once = runner(bad(16), "once")
    once.run()
    assert states(once) == [TrialState.DONE, TrialState.FAILED]
    again = runner(bad(16), "once")
    again.run()
    assert states(again) == [TrialState.DONE, TrialState.DONE]
    assert not list(again.folder.glob("trials/*/failure.txt"))
    retrying = runner(bad(16), "retrying", retries=1)
    retrying.run()
    assert states(retrying) == [TrialState.DONE, TrialState.DONE]


def test_enough_failures_end_the_sweep(runner: Make) -> None:
    sweep = runner("recipe: {batch_size: 13, epochs: 1}\nseeds: 8", max_failures=1)
    sweep.run()
    assert 1 <= states(sweep).count(TrialState.FAILED) <= 2  # another one was under way
    assert states(sweep).count(TrialState.WAITING) >= 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_next_call_goes_on(
    runner: Make, number: signal.Signals
) -> None:
    text = "recipe: {epochs: 6, batch_size: 19}\nseeds: 4"
    sweep = runner(text)

    def stop_early(sweep: SweepRunner) -> None:
        lines = history(sweep.folder)
        if len(lines) == 2 and all("epoch 2" in line for line in lines.values()):
            os.kill(os.getpid(), number)
            sweep.on_tick = lambda _: None

    sweep.on_tick = stop_early
    with pytest.raises(Interrupted) as stopped:
        sweep.run()
    assert stopped.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert states(sweep).count(TrialState.STOPPED) == 2
    runner(
        text.replace("seeds: 4", "seeds: 2")
    ).run()  # the two that were stopped: the others would wait
    for lines in history(sweep.folder).values():
        assert [line for line in lines if line.startswith("epoch")] == [
            f"epoch {n}" for n in range(1, 7)
        ]


def test_a_trial_that_others_stop_after_saving_goes_on_in_the_same_call(runner: Make) -> None:
    sweep = runner("recipe: {epochs: 6, batch_size: 19}")

    def preempt(sweep: SweepRunner) -> None:
        [status] = sweep.statuses.values()
        if any("epoch 2" in lines for lines in history(sweep.folder).values()):
            sweep.engine.cancel(status.trial.name)
            sweep.on_tick = lambda _: None

    sweep.on_tick = preempt
    sweep.run()
    assert states(sweep) == [TrialState.DONE]
    [lines] = history(sweep.folder).values()
    assert lines.count("start") == 2


def fork(sweep: SweepRunner) -> int:
    """Run a sweep in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sweep.run()
            code = 0
        finally:
            os._exit(code)
    return child


def is_alive(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def children_of(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(number) for number in text.split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes by /proc")
def test_killed_at_any_moment_the_final_table_is_the_same(runner: Make) -> None:
    expected = to_json(runner(GRID, "whole").run())
    moments = random.Random(0)
    for kill_children in (True, True, True, True, False):
        attempt = runner(GRID)
        earlier = history(attempt.folder)
        sweep = fork(attempt)
        while history(attempt.folder) == earlier and is_alive(sweep):
            time.sleep(
                0.01
            )  # until a trial has begun, which takes longer the busier the machine is
        time.sleep(moments.uniform(0, 0.1))
        with suppress(FileNotFoundError):  # it may have finished
            for process in (sweep, *(children_of(sweep) if kill_children else ())):
                os.kill(process, signal.SIGKILL)
        os.waitpid(sweep, 0)
    last = runner(GRID)
    assert to_json(last.run()) == expected
    attempts = [lines.count("start") for lines in history(last.folder).values()]
    assert max(attempts) > 1  # some of them were struck in the middle
    for lines in history(last.folder).values():
        assert lines.count("end") == 1  # what was finished did not run again
        assert lines[-1] == "end"
        assert "clash" not in lines  # nor did two processes ever share a folder


def test_a_full_disk_here_is_reported_and_later_trials_are_unharmed(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first trial's recipe cannot be written, the second one's can."""
    through_to_disk = files.through_to_disk
    full = [True]

    def full_once(file: BinaryIO) -> None:
        if full:
            full.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        through_to_disk(file)

    sweep = runner("recipe: {epochs: 1}\nseeds: 2")
    monkeypatch.setattr(files, "through_to_disk", full_once)
    table = sweep.run()
    assert states(sweep) == [TrialState.FAILED, TrialState.DONE]
    [reason] = table.failures.values()
    assert "No space left on device" in reason


def test_a_folder_that_cannot_be_written_is_reported_before_any_trial_starts(
    runner: Make,
) -> None:
    sweep = runner("recipe: {epochs: 1}\nseeds: 3")
    sweep.folder.write_text("a file in its place")
    with pytest.raises(RunFolderError, match=r"cannot write .*out: "):
        sweep.run()
    assert states(sweep) == [TrialState.WAITING] * 3


def test_a_final_table_that_cannot_be_written_is_an_error(runner: Make) -> None:
    sweep = runner("recipe: {epochs: 1}")
    remarks: list[str] = []
    sweep.on_remark = remarks.append
    (sweep.folder / "table.json").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"table\.json"):
        sweep.run()
    assert states(sweep) == [TrialState.DONE]
    assert remarks


def test_own_overhead_per_trial_is_small(runner: Make) -> None:
    """Twelve trials: what the sweep computes itself, and how long a slot stays empty at most until
    it looks again."""
    sweep = runner("recipe: {epochs: 1, batch_size: 13}\nseeds: 12")
    began = time.process_time()
    sweep.run()
    assert (time.process_time() - began) / 12 + INTERVAL < 0.5


def test_slots_share_gpus_and_cores() -> None:
    assert local_slots(None, ["0", "3"], 8) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local_slots(3, ["0", "1"], 8)] == [
        "0",
        "1",
        "0",
    ]
    assert [slot["OMP_NUM_THREADS"] for slot in local_slots(2, [], 8)] == ["4", "4"]
    assert [slot["OMP_NUM_THREADS"] for slot in local_slots(None, [], 2)] == ["1", "1"]
    assert len(local_slots(5, [], 2)) == 5


def test_a_job_runs_in_the_environment_of_its_slot(tmp_path: Path) -> None:
    engine = Local([{"OMP_NUM_THREADS": "7"}])
    job = Job(
        "a", lambda: ("sh", "-c", "echo threads $OMP_NUM_THREADS; exit 3"), tmp_path / "log.txt"
    )
    assert engine.submit(job)
    while not (ended := engine.poll()):
        time.sleep(0.01)
    assert [(item.name, item.exit_code) for item in ended] == [("a", 3)]
    assert (tmp_path / "log.txt").read_text() == "threads 7\n"


def test_a_job_that_another_process_holds_is_not_started_twice(tmp_path: Path) -> None:
    job = Job("a", lambda: ("sleep", "30"), tmp_path / "log.txt")
    first, second = Local([{}]), Local([{}])
    assert first.submit(job)
    assert not second.submit(job)
    first.cancel("a", force=True)
    while not (ended := first.poll()):
        time.sleep(0.01)
    assert ended[0].exit_code == -signal.SIGKILL
    assert second.submit(job)
    second.cancel("a")
    while not second.poll():
        time.sleep(0.01)
