"""A sweep file becomes the trials that it means, and every mistake in it is reported at once."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpat_cli.errors import ConfigError
from rpat_cli.sweep.expand import Plan, plan_sweep
from rpat_cli.sweep.labels import label_of
from rpat_cli.sweep.sweep_file import SHIPPED, find_sweep

Write = Callable[[str], Path]


def labels(plan: Plan) -> list[str]:
    return [variant.label for variant in plan.variants]


def names(plan: Plan) -> set[str]:
    return {trial.name for trial in plan.trials}


def error_of(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(path)
    assert caught.value.exit_code == 2
    return caught.value


def problems(path: Path) -> list[str]:
    return [str(problem) for problem in error_of(path).problems]


def test_grid_zip_list_and_random_are_multiplied(write: Write) -> None:
    plan = plan_sweep(
        write(
            """
            recipe: {epochs: 7}
            grid: {method: [pgd, trades], ra: [false, true]}
            zip: {batch_size: [10, 20, 30], optimizer.lr: [0.1, 0.2, 0.3]}
            list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}]
            random: {samples: 5, axes: {optimizer.weight_decay: {log: [1e-5, 1e-3]}}}
            exclude: [{ra: false}]
            seeds: [3, 8]
            """
        )
    )
    assert len(plan.variants) == 2 * 3 * 2 * 5
    assert len(names(plan)) == len(plan.trials) == 2 * len(plan.variants)
    assert {(v.recipe.batch_size, v.recipe.optimizer.lr) for v in plan.variants} == {
        (10, 0.1),
        (20, 0.2),
        (30, 0.3),
    }
    assert {(v.recipe.ra.weight, v.recipe.ra.mix) for v in plan.variants} == {
        (1.0, 0.5),
        (2.0, 0.7),
    }
    assert (
        {trial.seed for trial in plan.trials}
        == {trial.recipe.seed for trial in plan.trials}
        == {3, 8}
    )
    assert {trial.recipe.epochs for trial in plan.trials} == {7}


def test_order_by_seed_has_every_combination_of_the_first_seed_first(write: Write) -> None:
    text = "grid: {method: [pgd, mart]}\nseeds: [5, 1]\n"
    usual, by_seed = plan_sweep(write(text)), plan_sweep(write(text + "order: seeds"))
    assert [trial.title for trial in by_seed.trials] == [
        *("pgd, seed 5", "mart, seed 5"),
        *("pgd, seed 1", "mart, seed 1"),
    ]
    assert names(usual) == names(by_seed)
    assert [trial.seed for trial in usual.trials] == [5, 1, 5, 1]


def test_assignments_lie_over_the_recipe_and_below_the_axes(write: Write) -> None:
    path = write(
        "recipe: {epochs: 7, schedule: multistep}\neval: clean\n"
        "list: [{method: pgd}, {method: rebat, schedule: piecewise}]\n"
    )
    plan = plan_sweep(path, ["epochs=3", "eval=[clean, fgsm]", "schedule.milestones=[1, 2]"])
    assert [variant.recipe.epochs for variant in plan.variants] == [3, 3]
    assert plan.variants[0].recipe.eval == ["clean", "fgsm"]
    schedules = [variant.recipe.schedule for variant in plan.variants]
    assert [schedule.name for schedule in schedules] == ["multistep", "piecewise"]
    assert schedules[0].milestones == (1, 2)
    with pytest.raises(ConfigError) as caught:
        plan_sweep(path, ["method=trades", "seed=3", "epoks=1"])
    found = "\n".join(map(str, caught.value.problems))
    assert "--set method=trades: method: has no effect: it is an axis of this sweep." in found
    assert "seed: has no effect" in found
    assert "Did you mean 'epochs'?" in found


def test_random_draws_stay_in_their_bounds_and_more_of_them_keep_the_first(write: Write) -> None:
    text = """
    random:
      samples: {n}
      axes:
        optimizer.lr: {{log: [1e-3, 1e-1]}}
        optimizer.momentum: {{uniform: [0.5, 0.9]}}
        epochs: {{integer: [3, 5]}}
        method: {{choice: [pgd, mart]}}
    """
    few, many = (plan_sweep(write(text.format(n=n))) for n in (50, 60))
    recipes = [variant.recipe for variant in many.variants]
    assert all(1e-3 <= recipe.optimizer.lr <= 1e-1 for recipe in recipes)
    assert all(0.5 <= recipe.optimizer.momentum <= 0.9 for recipe in recipes)
    assert {recipe.epochs for recipe in recipes} == {3, 4, 5}
    assert {recipe.method.name for recipe in recipes} == {"pgd", "mart"}
    below = sum(math.log10(recipe.optimizer.lr) < -2 for recipe in recipes)
    assert 15 <= below <= 45  # half of them, if uniform in the logarithm; if uniform itself, 5
    assert names(few) < names(many)


def test_the_name_follows_what_is_trained_and_nothing_else(write: Write) -> None:
    base = plan_sweep(write("recipe: {epochs: 3}"))
    more_axes = plan_sweep(
        write("recipe: {epochs: 3}\ngrid: {method: [pgd, trades], attack.restarts: [1]}")
    )
    assert names(base) < names(more_axes)
    assert names(
        plan_sweep(write("recipe: {epochs: 3, data: {root: elsewhere}}\neval: clean"))
    ) == names(base)
    assert not names(plan_sweep(write("recipe: {epochs: 4}"))) & names(base)
    assert not names(plan_sweep(write("recipe: {epochs: 3}\nseeds: [1]"))) & names(base)


def test_equal_combinations_run_once(write: Write) -> None:
    plan = plan_sweep(write("grid: {optimizer.lr: [0.1, 1e-1, 0.2]}"))
    assert labels(plan) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    assert plan.duplicates == 1


def test_labels_are_for_people(write: Write) -> None:
    plan = plan_sweep(
        write(
            "grid: {method: [{name: trades, beta: 3}], ra: [false, true, {weight: 2}], "
            "threat.eps: [8/255]}"
        )
    )
    assert labels(plan) == [
        "trades(beta=3), threat.eps=8/255",
        "trades(beta=3) + ra, threat.eps=8/255",
        "trades(beta=3) + ra(weight=2), threat.eps=8/255",
    ]
    assert labels(plan_sweep(write("grid: {ra: [false, true]}"))) == ["no ra", "ra"]
    assert labels(plan_sweep(write("recipe: {epochs: 2}"))) == ["base"]


def test_rows_are_compared_with_the_row_that_differs_in_the_baseline_only(write: Write) -> None:
    plan = plan_sweep(
        write("grid: {method: [pgd, mart], ra: [false, true]}\nbaseline: {ra: false}")
    )
    assert {v.label: v.baseline for v in plan.variants} == {
        "pgd": None,
        "pgd + ra": "pgd",
        "mart": None,
        "mart + ra": "mart",
    }
    one = plan_sweep(
        write("grid: {method: [pgd, mart], ra: [false, true]}\nbaseline: {method: pgd, ra: false}")
    )
    assert [v.baseline for v in one.variants] == [None, "pgd", "pgd", "pgd"]


def test_recipes_below_the_axes_are_shipped_ones_and_files(write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("batch_size: 77\n")
    [variant] = plan_sweep(write("config: [quickstart, mine.yaml]\nrecipe: {epochs: 3}")).variants
    assert (variant.recipe.data.name, variant.recipe.batch_size, variant.recipe.epochs) == (
        "fashion-mini",
        77,
        3,
    )


def test_whole_recipes_are_an_axis_below_everything_else(write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("batch_size: 77\nepochs: 9\n")
    text = (
        "recipe: {epochs: 3}\ngrid: {extends: [quickstart, mine.yaml], ra: [false, "
        "true]}\nbaseline: {ra: false}"
    )
    plan = plan_sweep(write(text))
    assert labels(plan) == ["quickstart", "quickstart + ra", "mine", "mine + ra"]
    assert [v.recipe.batch_size == 77 for v in plan.variants] == [False, False, True, True]
    assert {v.recipe.epochs for v in plan.variants} == {3}
    assert "Did you mean 'quickstart'?" in "\n".join(
        problems(write(text.replace("quickstart", "quickstrat")))
    )


def test_mistakes_in_recipes_come_out_all_at_once_with_their_lines(write: Write) -> None:
    found = problems(
        write(
            "recipe: {epoch: 1}\ngrid:\n  method: [pgd, trade]\n  optimizer.lr: [0.1, fast]\n  "
            "optimiser.lr: [1]\n"
        )
    )
    assert len(found) == 4
    text = "\n".join(found)
    assert "sweep.yaml:1: epoch: unknown key. Did you mean 'epochs'?" in text
    assert "unknown method 'trade'. Did you mean 'trades'?" in text
    assert "sweep.yaml:4: optimizer.lr: 'fast'" in text
    assert (
        "sweep.yaml:5: optimiser: unknown key. Did you mean 'optimizer'?" in text
        or "optimiser" in text
    )
    assert "(In: pgd, optimizer.lr=fast, optimiser.lr=1 and 1 more.)" in text


def test_mistakes_in_the_file_itself_come_out_all_at_once(write: Write) -> None:
    found = "\n".join(
        problems(
            write(
                "gird: {ra: [true]}\nseeds: [1, 1]\n"
                "random: {samples: 2, axes: {epochs: {integr: [1, 2]}}}\ngrid: {ra: []}"
            )
        )
    )
    assert "sweep.yaml:1: gird: unknown key. Did you mean 'grid'?" in found
    assert "sweep.yaml:2: seeds: must all be different." in found
    assert "random.axes.epochs.integr: unknown key. Did you mean 'integer'?" in found
    assert "sweep.yaml:4: grid.ra" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "zip: {epochs: [1], batch_size: [1, 2]}",
            "need equally many values (given: epochs 1, batch_size 2)",
        ),
        (
            "grid: {epochs: [1]}\nexclude: [{epoch: 1}]",
            "epoch: is not an axis of this sweep. Did you mean 'epochs'?",
        ),
        ("grid: {ra: [true]}\nexclude: [{ra: true}]", "exclude: excludes every combination."),
        ("grid: {ra: [true, false]}\nbaseline: {ra: 3}", "no row has another row as its baseline"),
        ("config: quickstrat", "Did you mean 'quickstart'?"),
        ("seeds: 0", "seeds"),
        (
            "random: {samples: 1, axes: {epochs: {integer: [5, 2]}}}",
            "the lower bound must be below the upper bound",
        ),
        ("random: {samples: 1, axes: {optimizer.lr: {log: [0, 1]}}}", "above 0"),
        (
            "random: {samples: 1, axes: {optimizer.lr: {log: [1, 2], uniform: [1, 2]}}}",
            "exactly one of",
        ),
        # Of another type: the message has an example.
        (
            "recipe: quickstart",
            "sweep.yaml:1: recipe: must be a mapping of keys to values. Example: recipe: "
            "{epochs: 10}.",
        ),
        (
            "grid: {method: pgd}",
            "sweep.yaml:1: grid.method: must be a list. Example: grid: {method: [pgd, trades]",
        ),
        (
            "search: asha",
            "sweep.yaml:1: search: must be a mapping of keys to values. Example: search: {asha:",
        ),
        ("seeds: []", "sweep.yaml:1: seeds: must not be empty. Example: seeds: 3"),
        ("search: {optuna: {trials: 3}}", "search.optuna.axes: is missing."),
        ("order: seed", "sweep.yaml:1: order: should be 'combinations' or 'seeds'."),
        (
            "order: seeds\nsearch: {optuna: {trials: 3, axes: {epochs: {integer: [1, 2]}}}}",
            "optuna cannot be combined with order",
        ),
        (
            "random: {samples: 3, axes: {optimizer.lr: [1, 2]}}",
            "random.axes.optimizer.lr: must be a mapping",
        ),
        ("1: a", "sweep.yaml:1: 1: "),
        ("- a\n- b", "a sweep is a mapping of keys to values. Example: grid:"),
        ("seeds: 1\nseeds: 2\ngrid: {ra: [true]}\ngrid: {}", "duplicate key"),
        ("epochs: 1\nconfig: [quickstrat]", "sweep.yaml:2: unknown recipe 'quickstrat'."),
        ("seeds: 1\ngrid: {extends: [quickstrat]}", "sweep.yaml:2: unknown recipe 'quickstrat'."),
        # What would have no effect.
        (
            "grid: {seed: [1, 2]}",
            "seed: cannot be an axis: the seeds of all trials are listed under seeds:.",
        ),
        ("recipe:\n  seed: 5", "sweep.yaml:2: recipe.seed: has no effect: the seeds"),
        (
            "grid: {eval: [clean, fgsm]}",
            "sweep.yaml:1: eval: cannot be an axis: all of its values would train the same model.",
        ),
        (
            "grid: {ra: [true]}\nexclude: [{ra: false}]",
            "sweep.yaml:2: exclude.0: excludes nothing: no combination has",
        ),
        (
            "grid: {optimizer.lr: [1e-3]}\nexclude: [{optimizer.lr: 0.001}]",
            "Write the values exactly as in the axes.",
        ),
    ],
)
def test_each_mistake_is_reported(write: Write, text: str, said: str) -> None:
    assert said in "\n".join(problems(write(text)))


def test_what_is_drawn_at_random_may_escape_what_is_excluded(write: Write) -> None:
    text = "random: {samples: 3, axes: {epochs: {integer: [1, 9]}}}\nexclude: [{epochs: 10}]"
    plan = plan_sweep(write(text))
    assert len(plan.trials) + plan.duplicates == 3


def test_mistakes_in_the_file_and_in_its_recipes_come_out_together(write: Write) -> None:
    path = write(
        "sedes: 3\nexclude: {ra: true}\ngrid:\n  method: [trade]\n  optimizer.momentum: [2]\n"
    )
    found = "\n".join(problems(path))
    assert "4 mistakes in the sweep" in str(error_of(path))
    assert "sweep.yaml:1: sedes: unknown key. Did you mean 'seeds'?" in found
    assert "sweep.yaml:2: exclude: must be a list." in found
    assert "sweep.yaml:4: method: unknown method 'trade'." in found
    assert "sweep.yaml:5: optimizer.momentum: 2" in found


def test_a_thousand_trials_expand_in_two_seconds(write: Write) -> None:
    path = write(
        "grid: {method: [pgd, trades], ra: [false, true], epochs: [1, 2, 3, 4, 5], batch_size: "
        "[5, 6, 7, 8, 9]}\n"
        "seeds: 10"
    )
    began = time.process_time()
    assert len(plan_sweep(path).trials) == 1000
    assert time.process_time() - began < 2


def test_sweeps_are_found_by_file_and_by_name(write: Write) -> None:
    path = write("seeds: 1")
    assert find_sweep(str(path)) == path
    with pytest.raises(ConfigError, match="Did you mean 'fashion-mini-methods'"):
        find_sweep("fashion-mini-method")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_expand(path: Path) -> None:
    plan = plan_sweep(path)
    assert len({trial.seed for trial in plan.trials}) >= 3
    assert any(variant.baseline for variant in plan.variants)
    assert plan.duplicates == 0
    assert f"# Launch: rpat sweep {path.stem}\n" in path.read_text()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_of_the_papers_tables_has_its_sweep(number: int) -> None:
    plan = plan_sweep(find_sweep(f"paper-table{number}"))
    pairs = {variant.label: variant.baseline for variant in plan.variants}
    plain = [label for label, baseline in pairs.items() if baseline is None]
    assert pairs == dict.fromkeys(plain) | {f"{name} + ra": name for name in plain}
    assert all("autoattack" in str(variant.recipe.eval) for variant in plan.variants)


def test_a_name_as_an_axis_reads_as_a_name() -> None:
    assert label_of({"method.name": "trades", "ra": True}) == "trades + ra"
    assert label_of({"method.name": "pgd", "optimizer.lr": 0.1}) == "pgd, optimizer.lr=0.1"
