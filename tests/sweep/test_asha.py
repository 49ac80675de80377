"""Successive halving stops the worse trials and never the best one, whatever happens on the way."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from instant import Instant

from rpat_cli.errors import ConfigError
from rpat_cli.sweep import runner as runner_module
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.search import search_for
from rpat_cli.sweep.search.asha import promoted
from rpat_cli.sweep.status import TrialState
from rpat_cli.sweep.table import to_json, to_markdown

Make = Callable[..., SweepRunner]

RATES = [round(0.01 * n, 2) for n in range(1, 28)]
random.Random(0).shuffle(RATES)


def sweep(rates: list[float] = RATES, *, epochs: int = 27, more: str = "") -> str:
    return (
        f"recipe: {{epochs: {epochs}}}\ngrid: {{optimizer.lr: {rates}}}\n"
        f"search: {{asha: {{min_epochs: 1, factor: 3}}}}\n{more}"
    )


def by_rate(recipe: dict, epoch: int) -> dict[str, float]:
    """The higher the learning rate, the better from the first epoch on."""
    return {"robust_acc": recipe["optimizer"]["lr"] * epoch / recipe["epochs"], "clean_acc": 0.5}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "INTERVAL", 0.001)


def reached(runner: SweepRunner) -> Mapping[float, tuple[TrialState, int]]:
    """Learning rate -> state and epochs."""
    return {
        status.trial.recipe.optimizer.lr: (status.state, status.folder.progress().epoch)
        for status in runner.statuses.values()
    }


@pytest.mark.parametrize(("slots", "seed"), [(1, 0), (4, 1), (27, 2)])
def test_the_worse_half_is_stopped_and_the_best_never(runner: Make, slots: int, seed: int) -> None:
    engine = Instant(by_rate, slots, seed)
    asha = runner(sweep(), engine=engine)
    table = asha.run()
    ends = reached(asha)
    assert ends[0.27] == (TrialState.DONE, 27)
    assert ends[0.26][1] >= 9  # one of the best three
    assert all(ends[rate] == (TrialState.PRUNED, 1) for rate in RATES if rate < 0.05)
    # Successive halving in rounds would take 27·1 + 9·2 + 3·6 + 1·18 = 81; everything takes 729.
    assert 81 <= engine.epochs < 729 / 4
    assert engine.epochs == sum(epoch for _, epoch in ends.values())  # nothing was trained twice
    assert table.failures == {}
    [row] = [
        row for row in table.rows if (row.label, row.checkpoint) == ("optimizer.lr=0.27", "best")
    ]
    assert row.n == 1
    assert "optimizer.lr=0.01: stopped at epoch 1 by asha" in table.notes
    assert "\n- optimizer.lr=0.01: stopped at epoch 1 by asha\n" in to_markdown(table)
    assert not (asha.statuses[asha.plan.trials[RATES.index(0.01)].name].folder.run.report).exists()


def test_the_end_does_not_depend_on_what_finishes_first(runner: Make) -> None:
    ends = []
    for n, slots in enumerate((1, 2, 3, 9, 27)):
        asha = runner(sweep(), f"out{n}", Instant(by_rate, slots, seed=n))
        asha.run()
        ends.append(reached(asha))
    assert all(end == ends[0] for end in ends)


def test_more_slots_do_not_wait_for_a_whole_rung(runner: Make) -> None:
    engine = Instant(by_rate)
    asha = runner(sweep(), engine=engine)
    asha.run()
    first_again = next(n for n, name in enumerate(engine.begun) if name in engine.begun[:n])
    assert (
        first_again == 3
    )  # with one of three on the first rung promoted, it goes before what has not begun


def test_a_second_call_runs_nothing_and_the_dry_run_tells_the_states(runner: Make) -> None:
    first = runner(sweep(), engine=Instant(by_rate))
    table = first.run()
    engine = Instant(by_rate)
    again = runner(sweep(), engine=engine)
    assert reached(again) == reached(first)
    listed = search_for(again.plan, again.folder)
    assert {s.reason for s in listed.statuses.values() if s.state is TrialState.PRUNED} >= {
        "stopped at epoch 1 by asha"
    }
    assert to_json(again.run()) == to_json(table)
    assert engine.begun == []


def test_further_trials_may_bring_on_more_promotions(runner: Make) -> None:
    earlier, later = Instant(by_rate), Instant(by_rate)
    few = runner(sweep(RATES[:8]), engine=earlier)
    few.run()
    more = runner(sweep(), engine=later)
    more.run()
    ends = reached(more)
    assert ends[0.27] == (TrialState.DONE, 27)
    assert earlier.epochs + later.epochs == sum(
        epoch for _, epoch in ends.values()
    )  # nothing was trained twice
    assert all(ends[rate][1] >= epoch for rate, (_, epoch) in reached(few).items())
    whole = runner(sweep(), "whole", Instant(by_rate))
    whole.run()
    assert all(ends[rate][1] >= epoch for rate, (_, epoch) in reached(whole).items())


def test_seeds_go_on_together_by_their_mean(runner: Make) -> None:
    def lucky(recipe: dict, epoch: int) -> dict[str, float]:
        """Seed 0 of the lowest rate beats all, its other seeds are the worst."""
        luck = (0.9 if recipe["seed"] == 0 else -0.1) if recipe["optimizer"]["lr"] == 0.1 else 0
        return {"robust_acc": recipe["optimizer"]["lr"] + luck, "clean_acc": 0.5}

    asha = runner(sweep([0.1, 0.2, 0.6], epochs=3, more="seeds: 3"), engine=Instant(lucky, 2))
    asha.run()
    states = {status.trial.title: status.state for status in asha.statuses.values()}
    assert {title for title, state in states.items() if state is TrialState.DONE} == {
        f"optimizer.lr=0.6, seed {seed}" for seed in range(3)
    }
    assert len(asha.search.notes()) == 2  # one for each combination, not for each seed


def test_a_failed_trial_is_no_obstacle_and_has_another_chance(runner: Make) -> None:
    def fails(recipe: dict, epoch: int) -> dict[str, float]:
        if recipe["optimizer"]["lr"] == 0.3:
            raise ValueError
        return by_rate(recipe, epoch)

    text = sweep([0.1, 0.3, 0.2], epochs=9)
    asha = runner(text, engine=Instant(fails))
    table = asha.run()
    assert [status.state for status in asha.statuses.values()] == [
        TrialState.PRUNED,
        TrialState.FAILED,
        TrialState.DONE,
    ]
    assert list(table.failures) == ["optimizer.lr=0.3, seed 0"]
    mended = runner(text, engine=Instant(by_rate))
    assert mended.run().failures == {}
    assert reached(mended)[0.3] == (TrialState.DONE, 9)


def test_a_retried_trial_may_still_be_promoted(runner: Make) -> None:
    failed: list[int] = []

    def once(recipe: dict, epoch: int) -> dict[str, float]:
        if recipe["optimizer"]["lr"] == 0.3 and not failed:
            failed.append(epoch)
            raise ValueError
        return by_rate(recipe, epoch)

    asha = runner(sweep([0.1, 0.3, 0.2], epochs=9), engine=Instant(once), retries=1)
    asha.run()
    assert reached(asha)[0.3] == (TrialState.DONE, 9)


def test_promotion_follows_the_order_of_arrival() -> None:
    assert promoted([0.1, 0.3, 0.2], 3, closed=False) == [1]
    assert promoted([0.1, 0.3, None, 0.9], 3, closed=False) == []  # none counts behind the third
    assert promoted([0.1, 0.3, 0.2, 0.9, 0.8, 0.0], 3, closed=False) == [1, 3, 4]
    assert promoted([0.1, 0.3], 3, closed=True) == [1]  # a rung too short for its factor
    assert promoted([0.5, 0.5, 0.5], 3, closed=False) == [0]
    assert promoted([float("-inf")] * 3, 3, closed=True) == []


def test_the_best_of_a_rung_always_goes_on_and_about_one_in_factor_with_it() -> None:
    source = random.Random(1)
    for _ in range(200):
        metrics = [source.random() for _ in range(source.randint(1, 60))]
        factor = source.randint(2, 5)
        chosen = promoted(metrics, factor, closed=True)
        assert metrics.index(max(metrics)) in chosen
        assert len(chosen) == len(set(chosen)) >= max(1, len(metrics) // factor)
        for cut in range(len(metrics)):  # what is known early stays so
            early = promoted(metrics[:cut], factor, closed=False)
            if len(metrics) >= factor:
                assert early == chosen[: len(early)]


def fork(make: Callable[[], SweepRunner]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            make().run()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes by /proc")
def test_killed_at_any_moment_the_end_is_the_same(runner: Make) -> None:
    text = sweep([0.1, 0.5, 0.3, 0.2, 0.4, 0.6], epochs=4, more="zip: {batch_size: [18]}")
    whole = runner(text, "whole")
    expected = to_json(whole.run())
    moments = random.Random(0)
    for kill_children in (True, False, True):
        child = fork(lambda: runner(text))
        time.sleep(moments.uniform(0.3, 1.0))
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{child}/task/{child}/children").read_text().split()
            for process in (child, *(map(int, children) if kill_children else ())):
                os.kill(process, signal.SIGKILL)
        os.waitpid(child, 0)
    last = runner(text)
    assert to_json(last.run()) == expected
    assert reached(last) == reached(whole)
    histories = [
        (s.folder.path / "history.txt").read_text().splitlines() for s in last.statuses.values()
    ]
    assert all("clash" not in lines for lines in histories)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {asha: {min_epoch: 1}}", "unknown key. Did you mean 'min_epochs'?"),
        ("search: {ash: {}}", "Did you mean 'asha'? Allowed: asha, optuna."),
        ("search: {}", "must be exactly one of asha, optuna"),
        ("search: {asha: {factor: 1}}", "should be greater than or equal to 2"),
        ("search: {asha: {metric: robust}}", "unknown metric 'robust'. Did you mean 'robust_acc'?"),
        (
            "search: {asha: {min_epochs: 4}}\nrecipe: {epochs: 4}",
            "4: must be below the epochs of the recipe, 4.",
        ),
        (
            "search: {asha: {}}\ngrid: {epochs: [3, 4]}",
            "the combinations have different epochs (3, 4)",
        ),
        (
            "search: {asha: {}}\nrecipe: {epochs: 4, validation: {every: 2}}",
            "the first validation is at epoch 2",
        ),
    ],
)
def test_mistakes_are_explained(runner: Make, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        runner(text)
    assert message in str(caught.value)
    assert "sweep.yaml" in str(caught.value)
