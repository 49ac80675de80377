"""What the trials of a sweep begin or learn from: one run, in every call, or one for each seed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from instant import Instant

from rpat_cli.errors import ConfigError, RunFolderError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.start_name import with_networks_named
from rpat_cli.recipe.layers import Layer, parse_assignments, resolve
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.runner import SweepRunner
from rpat_cli.sweep.starts import RunNames, for_seed, is_per_seed
from rpat_cli.sweep.status import TrialState, check_starts, read_statuses

Write = Callable[[str], Path]

TEACHER = "{name: rslad, teacher: last}"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes a run under `runs/`, newer than those before."""
    monkeypatch.chdir(tmp_path)
    made: list[str] = []

    def make(name: str) -> None:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text("model: small-cnn\ndata: {name: fashion-mini}\n")
        made.append(name)
        os.utime(run / "recipe.yaml", (1000 + len(made), 1000 + len(made)))

    return make


@pytest.mark.parametrize("recipe", ["{init: last}", f"{{method: {TEACHER}}}"])
def test_last_is_the_same_run_in_every_call(
    write: Write, runs: Callable[[str], None], tmp_path: Path, recipe: str
) -> None:
    """The one that was the newest when the sweep began, for every trial and after any time."""
    runs("first")
    path, folder = write(f"recipe: {recipe}\nseeds: 3"), tmp_path / "sweep"
    plan = plan_sweep(path, (), RunNames.of(folder))
    sources = {t.recipe.init or t.recipe.method.options["teacher"] for t in plan.trials}
    assert sources == {"runs/first"}

    engine = Instant(lambda recipe, epoch: {"robust_acc": 0.5})
    SweepRunner(plan, folder, engine).run()
    written = [yaml.safe_load(file.read_text()) for file in folder.glob("trials/*/recipe.yaml")]
    assert {each["init"] or each["method"]["teacher"] for each in written} == {"runs/first"}
    assert json.loads((folder / "starts.json").read_text()) == {"last": "runs/first"}

    runs("second")
    again = plan_sweep(path, (), RunNames.of(folder))
    assert [trial.name for trial in again.trials] == [trial.name for trial in plan.trials]
    elsewhere = plan_sweep(path)
    assert {t.name for t in elsewhere.trials}.isdisjoint(t.name for t in plan.trials)
    for damaged in ("[", '{"last": 1}', '{"last": ""}', *map(named, ELSEWHERE)):
        (folder / "starts.json").write_text(damaged)
        with pytest.raises(RunFolderError, match="Delete it"):
            RunNames.of(folder)


ELSEWHERE = ("evil.py:build", "hf:evil/net", "torchvision:resnet18", "robustbench:Carmon2019")
"""What a stranger's folder may not let a run's name mean."""


def named(network: str) -> str:
    return json.dumps({"last": network})


def test_the_model_of_a_transfer_attack_is_named_as_the_trial_records_it(
    write: Write, runs: Callable[[str], None], tmp_path: Path
) -> None:
    runs("one")
    [spec] = parse_suite(plan_sweep(write("eval: [transfer:last@pgd-2]")).trials[0].recipe.eval)
    assert spec.label == "transfer:one@pgd-2"  # under which the trial's report has it
    assert spec.settings["source"] == str(tmp_path / "runs" / "one")


def test_words_for_the_same_run_make_the_same_trials(
    write: Write, runs: Callable[[str], None]
) -> None:
    runs("one")
    plan = plan_sweep(write("grid: {init: [last, one, runs/one]}"))
    assert (len(plan.trials), plan.duplicates) == (1, 2)
    shutil.rmtree("runs")
    with pytest.raises(RunFolderError):
        plan_sweep(write("recipe: {init: last}"))


def test_each_seed_has_its_own_start_and_teacher(write: Write) -> None:
    plan = plan_sweep(
        write(
            """
            grid: {init: [runs/a-0, "runs/a-{seed}"]}
            recipe: {method: {name: rslad, teacher: "t{seed}.pt"}}
            seeds: [4, 7]
            """
        )
    )
    found = [(t.seed, t.recipe.seed, t.recipe.init, t.recipe.method.teacher) for t in plan.trials]
    assert found == [
        (4, 4, "runs/a-0", "t4.pt"),
        (7, 7, "runs/a-0", "t7.pt"),
        (4, 4, "runs/a-4", "t4.pt"),
        (7, 7, "runs/a-7", "t7.pt"),
    ]
    assert [variant.label for variant in plan.variants] == ["init=runs/a-0", "init=runs/a-{seed}"]
    assert plan_sweep(write('grid: {init: [a-4, "a-{seed}"]}\nseeds: [4]')).duplicates == 1


def test_rows_that_share_some_of_their_trials_are_refused(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(write('grid: {init: [runs/a-0, "runs/a-{seed}"]}\nseeds: [0, 7]'))
    (problem,) = caught.value.problems
    assert problem.message == (
        "the rows 'init=runs/a-0' and 'init=runs/a-{seed}' are the same training for seed 0, and "
        "different ones for the other seeds."
    )
    assert problem.source.endswith(".yaml")


def test_a_seed_in_a_list_is_replaced(write: Write) -> None:
    # No method takes a list of networks yet; a plugin's may.
    layers = [Layer("sweep.yaml", {"method": {"name": "pgd", "teachers": ["a-{seed}", "b"]}})]
    assert is_per_seed(layers)
    assert for_seed(layers, 4)[0].values["method"]["teachers"] == ["a-4", "b"]


def test_a_seed_where_none_is_replaced_is_a_mistake(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(write('recipe: {data: {root: "d-{seed}"}, epochs: -1}'))
    assert [problem.key for problem in caught.value.problems] == ["data.root", "epochs"]
    for key, method in (("init", "pgd"), ("method.teacher", "rslad")):
        with pytest.raises(ConfigError, match="of a sweep file only"):
            with_networks_named(resolve(parse_assignments([f"method={method}", key + "=a-{seed}"])))


def test_starts_that_are_missing_are_told_before_the_first_trial(
    write: Write, runs: Callable[[str], None], tmp_path: Path
) -> None:
    """Of trials with a checkpoint the start is no longer needed, the teacher is; of finished ones
    neither."""
    runs("a-4")
    method = '{name: rslad, teacher: "t{seed}.pt"}'
    text = f'recipe: {{init: "runs/a-{{seed}}", method: {method}}}\nseeds: [4, 7, 9, 10, 11]'
    statuses = list(read_statuses(plan_sweep(write(text)), tmp_path / "sweep").values())
    Path("runs/a-4/checkpoints").mkdir()
    for file in ("runs/a-4/checkpoints/last.pt", "t4.pt", "t7.pt"):
        Path(file).touch()
    for status, file in ((statuses[2], "checkpoints/last.pt"), (statuses[3], "recipe.yaml")):
        begun = status.folder.run.path / file
        begun.parent.mkdir(parents=True)
        begun.touch()
    statuses[4].state = TrialState.DONE
    with pytest.raises(ConfigError) as caught:
        check_starts(statuses)
    found = [(problem.key, problem.message[:15], problem.hint) for problem in caught.value.problems]
    assert found == [
        ("init", "runs/a-7 does n", "(In: base, seed 7.)"),
        ("method.teacher", "there is no t9.", "(In: base, seed 9.)"),
        ("method.teacher", "there is no t10", "(In: base, seed 10.)"),
        ("init", "runs/a-10 does ", "(In: base, seed 10.)"),
    ]
