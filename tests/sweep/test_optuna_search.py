"""A search with Optuna comes near the optimum, goes on after any kill, and knows the Pareto
front."""

import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable

import optuna
import pytest
from instant import Instant

from rpat_cli.errors import ConfigError, MissingExtraError, RunFolderError
from rpat_cli.sweep import runner as runner_module
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.search import SEARCHES, search_for
from rpat_cli.sweep.search.optuna_search import _distribution, _value
from rpat_cli.sweep.spec import Draw
from rpat_cli.sweep.status import TrialState
from rpat_cli.sweep.table import to_json

Make = Callable[..., SweepRunner]


def sweep(trials: int, settings: str = "", more: str = "") -> str:
    return f"""
recipe: {{epochs: 3}}
search:
  optuna:
    trials: {trials}
    axes: {{optimizer.lr: {{log: [1e-3, 1]}}, optimizer.momentum: {{uniform: [0, 0.9]}}}}
    {settings}
{more}
"""


def hill(recipe: dict, epoch: int) -> dict[str, float]:
    """Highest, with 1, at a learning rate of 0.03 and momentum 0.5 in the second of three
    epochs."""
    optimizer = recipe["optimizer"]
    height = 1 - math.log10(optimizer["lr"] / 0.03) ** 2 - 4 * (optimizer["momentum"] - 0.5) ** 2
    return {"robust_acc": height - (epoch != 2) / 10, "clean_acc": height / 2 + epoch / 10}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "INTERVAL", 0.001)


def study(runner: SweepRunner) -> optuna.Study:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(runner.folder / "optuna.jsonl"))
    )
    return optuna.load_study(storage=storage, study_name="rpat")


def told(runner: SweepRunner) -> Counter[int]:
    """How often the journal says of each combination that it is finished (operation 6)."""
    lines = map(json.loads, (runner.folder / "optuna.jsonl").read_text().splitlines())
    return Counter(line["trial_id"] for line in lines if line["op_code"] == 6)


def test_it_comes_nearer_the_optimum_than_its_first_draws(runner: Make) -> None:
    search = runner(sweep(30, "seed: 2"), engine=Instant(hill))
    table = search.run()
    values = [trial.value for trial in study(search).trials]
    assert len(values) == len(search.statuses) == len(table.rows) / 2 == 30
    assert max(values) > max(values[:10])
    assert sum(values[-10:]) > sum(values[:10]) + 5
    assert max(values) > 0.97
    best = next(line for line in table.notes if line.startswith("best (validation): optimizer.lr="))
    assert best.endswith(f"robust_acc {100 * max(values):.2f}")
    assert {status.state for status in search.statuses.values()} == {TrialState.DONE}


def test_the_study_gets_the_mean_over_the_seeds_at_the_best_epoch(runner: Make) -> None:
    def seeded(recipe: dict, epoch: int) -> dict[str, float]:
        return {name: value - recipe["seed"] / 10 for name, value in hill(recipe, epoch).items()}

    search = runner(
        sweep(3, "objective: [clean_acc, robust_acc]", "seeds: 3"), engine=Instant(seeded, 2)
    )
    assert search.expected == 9
    search.run()
    assert len(search.statuses) == 9
    for trial in study(search).trials:
        [recipe, *_] = [
            status.trial.recipe.model_dump()
            for status in search.statuses.values()
            if status.trial.recipe.optimizer.lr == trial.params["optimizer.lr"]
        ]
        expected = hill(
            recipe, 2
        )  # the clean accuracy is higher in epoch 3, which is not the one that was chosen
        assert trial.values == pytest.approx(
            [expected["clean_acc"] - 0.1, expected["robust_acc"] - 0.1]
        )


def killed(runner: SweepRunner, owner: object, method: str, nth: int) -> None:
    """Run a search in a process of its own that is killed at the nth call of a method."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(owner, method), iter(range(1, nth))

        def call(*arguments: object) -> object:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(owner, method, call)
        try:
            runner.run()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_killed_at_any_moment_it_asks_and_tells_nothing_twice(runner: Make) -> None:
    whole = runner(sweep(16), "whole", Instant(hill))
    expected = to_json(whole.run())

    def again() -> SweepRunner:
        return runner(sweep(16), engine=Instant(hill))

    # Asked and not recorded; recorded and not begun; begun and not trained; trained, not told.
    for method, nth in (("_take", 4), ("ended", 5)):
        search = again()
        killed(search, search.search, method, nth)
    for method, nth in (("submit", 3), ("poll", 3)):
        search = again()
        killed(search, search.engine, method, nth)
    search = again()
    study(search).ask()  # and killed before anything was drawn for it
    assert 0 < len(search.statuses) == 16 - search.search.upcoming < 16
    assert to_json(search.run()) == expected
    complete = [trial for trial in study(search).trials if trial.params]
    assert len(complete) == len({trial.name for trial in search.search.plan.trials}) == 16
    assert told(search) == {trial.number: 1 for trial in complete}


def test_a_second_call_asks_for_nothing_and_a_longer_search_for_the_rest(runner: Make) -> None:
    first = runner(sweep(6), engine=Instant(hill))
    first.run()
    journal = (first.folder / "optuna.jsonl").read_text()
    engine = Instant(hill)
    runner(sweep(6), engine=engine).run()
    assert engine.begun == []
    assert (first.folder / "optuna.jsonl").read_text() == journal
    longer = runner(sweep(8, "sampler: random"), engine=engine)
    assert longer.search.upcoming == 2
    longer.run()
    assert len(engine.begun) == 2
    assert len({tuple(trial.params.values()) for trial in study(longer).trials}) == 8


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_the_pareto_front_is_the_known_one(runner: Make, sampler: str) -> None:
    def trade(recipe: dict, epoch: int) -> dict[str, float]:
        """Momentum trades one accuracy for the other; with the wrong batch size both are far
        worse."""
        worse = 0.6 * (recipe["batch_size"] == 20)
        momentum = recipe["optimizer"]["momentum"]
        return {"clean_acc": 1 - momentum**2 - worse, "robust_acc": 1 - (1 - momentum) ** 2 - worse}

    text = f"""
recipe: {{epochs: 1}}
search:
  optuna:
    trials: 14
    axes: {{batch_size: {{choice: [10, 20]}}, optimizer.momentum: {{uniform: [0, 0.99]}}}}
    objective: [clean_acc, robust_acc]
    sampler: {sampler}
"""
    search = runner(text, engine=Instant(trade, 2))
    table = search.run()
    front = {
        line.split(": ")[1]
        for line in table.notes
        if line.startswith("on the Pareto front (validation): ")
    }
    good = {
        variant.label for variant in search.search.plan.variants if variant.recipe.batch_size == 10
    }
    assert front == good
    assert 0 < len(good) < 14


def test_an_invalid_recipe_or_a_failure_is_told_and_the_search_goes_on(
    runner: Make,
) -> None:
    def fails(recipe: dict, epoch: int) -> dict[str, float]:
        if recipe["method"]["beta"] > 6:
            raise ValueError
        return {"robust_acc": recipe["method"]["beta"] / 10, "clean_acc": 0.5}

    text = """
recipe: {epochs: 1}
search:
  optuna:
    trials: 16
    axes: {method: {choice: [pgd, trades]}, method.beta: {uniform: [1, 8]}}
"""
    engine = Instant(fails)
    search = runner(text, engine=engine)
    table = search.run()
    trials = study(search).trials
    assert len(trials) == 16
    by_outcome = Counter(
        (trial.params["method"], trial.params["method.beta"] > 6, trial.state.name)
        for trial in trials
    )
    assert {(method, high): state for method, high, state in by_outcome} == {
        ('"pgd"', False): "FAIL",
        ('"pgd"', True): "FAIL",
        ('"trades"', False): "COMPLETE",
        ('"trades"', True): "FAIL",
    }
    wrong = [line for line in table.notes if " is no valid recipe: " in line]
    assert len(wrong) == sum(
        count for (method, _, _), count in by_outcome.items() if method == '"pgd"'
    )
    assert "beta: unknown key." in wrong[0]
    assert len(table.failures) == by_outcome['"trades"', True, "FAIL"]
    again = runner(text, engine=engine)
    begun = list(engine.begun)
    assert again.run() == table
    assert engine.begun == begun  # the study was told: it will not hear anything else


def test_an_equal_combination_is_not_trained_again(runner: Make) -> None:
    text = (
        "recipe: {epochs: 1}\nsearch: {optuna: {trials: 9, axes: {batch_size: {choice: [10, 20]}}}}"
    )
    engine = Instant(hill)
    search = runner(text, engine=engine)
    search.run()
    assert len(engine.begun) == len(search.statuses) == 2
    assert search.search.plan.duplicates == 7
    assert [trial.state.name for trial in study(search).trials] == ["COMPLETE"] * 9


def test_the_dry_run_writes_nothing_and_says_how_many_will_follow(runner: Make) -> None:
    search = runner(sweep(5, more="seeds: 2"))
    found = search_for(search.plan, search.folder)
    assert (found.statuses, found.upcoming) == ({}, 10)
    assert not search.folder.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[0, 0.9]", "[0, 0.8]"),
        ("objective: robust_acc", "objective: clean_acc"),
        ("epochs: 3", "epochs: 2"),
    ],
)
def test_a_study_of_another_search_is_refused(runner: Make, before: str, after: str) -> None:
    text = sweep(2, "objective: robust_acc")
    runner(text, engine=Instant(hill)).run()
    with pytest.raises(ConfigError, match="are not those of the study in .*optuna.jsonl") as caught:
        runner(text.replace(before, after))
    assert "--out" in str(caught.value)


@pytest.mark.parametrize("nth", [0, 12, 13, 14, 15, 16])
def test_a_full_disk_stops_the_search_and_the_next_call_goes_on(
    runner: Make, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    whole = runner(sweep(6), "whole", Instant(hill))
    expected = to_json(whole.run())
    search = runner(sweep(6), engine=Instant(hill))
    calls = iter(range(nth))

    def full(descriptor: int) -> None:
        """Half of a line has been written."""
        if next(calls, None) is None:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 5)
            raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            RunFolderError, match="cannot write .*optuna.jsonl: No space left on device"
        ):
            search.run()
    last = runner(sweep(6), engine=Instant(hill))
    assert len(last.statuses) < 6
    assert to_json(last.run()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (sweep(0), "should be greater than or equal to 1"),
        (sweep(5, "sampler: tpa"), "unknown sampler 'tpa'. Did you mean 'tpe'?"),
        (sweep(5, "objective: robust"), "unknown objective 'robust'. Did you mean 'robust_acc'?"),
        (
            sweep(5, "objective: robust_acc_wa"),
            "robust_acc_wa needs averaged weights, and the recipe has none.",
        ),
        (sweep(5, "objective: [robust_acc, robust_acc]"), "must all be different"),
        (sweep(5, "trial: 3"), "unknown key. Did you mean 'trials'?"),
        (
            sweep(5).replace("uniform", "unifrom"),
            "unknown key. Did you mean 'uniform'? Allowed: choice, uniform",
        ),
        (
            sweep(5).replace("optimizer.lr", "optimiser.lr"),
            "optimiser: unknown key. Did you mean 'optimizer'?",
        ),
        (sweep(5).replace("[0, 0.9]", "[0, 2]"), "optimizer.momentum: 2.0: should be less than 1"),
        (
            sweep(5, more="grid: {ra: [true]}\nbaseline: {ra: true}"),
            "cannot be combined with grid, baseline",
        ),
        (
            sweep(5, more="").replace("search:", "search:\n  asha: {}"),
            "must be exactly one of asha, optuna",
        ),
    ],
)
def test_mistakes_are_explained(runner: Make, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        runner(text)
    assert message in str(caught.value)
    assert "sweep.yaml" in str(caught.value)


def test_without_optuna_it_says_what_to_install(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "rpat_cli.sweep.search.optuna_search")
    monkeypatch.setitem(
        SEARCHES._entries, "optuna", "rpat_cli.sweep.search.optuna_search:OptunaSearch"
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'rpat\[optuna\]'"):
        runner(sweep(5))


@pytest.mark.parametrize(
    "choice", [[1, 2.5, "a"], [True, False, None], [["flip"], ["flip", "crop"]], [{"weight": 2}]]
)
def test_a_choice_may_be_anything_that_a_recipe_holds(choice: list) -> None:
    axis = Draw(choice=choice)
    distribution = _distribution(axis)
    internal = [distribution.to_external_repr(n) for n in range(len(choice))]
    assert [_value(axis, given) for given in internal] == choice


def test_a_damaged_journal_is_explained(runner: Make) -> None:
    search = runner(sweep(2), engine=Instant(hill))
    search.run()
    journal = search.folder / "optuna.jsonl"
    journal.write_text(journal.read_text()[:500] + "\n" + journal.read_text()[500:])
    with pytest.raises(ConfigError, match=r"optuna\.jsonl is damaged: .*Delete it"):
        runner(sweep(2))
