"""`rpat sweep --set`: what would have no effect, or cost an earlier table, is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rpat_cli.cli.sweep_session import sweep
from rpat_cli.errors import ConfigError
from rpat_cli.methods import REGULARIZERS
from rpat_cli.recipe import plugins
from rpat_cli.recipe.trust import trusting
from rpat_cli.sweep.assignments import check_folder
from rpat_cli.sweep.expand import plan_sweep

Write = Callable[[str], Path]

OPTUNA = "search: {{optuna: {{trials: 3, axes: {{{}}}}}}}"
LR = OPTUNA.format("optimizer.lr: {log: [1e-3, 1]}")
METHODS = OPTUNA.format("method: {choice: [pgd, trades, mart]}")
BY_NAME = "grid: {method.name: [pgd, trades]}"


@pytest.mark.parametrize(
    ("text", "assignment", "key"),
    [
        (LR, "optimizer.lr=0.5", "optimizer.lr"),
        (LR, "optimizer={lr: 0.5, momentum: 0.5}", "optimizer"),  # the momentum alone would do
        (METHODS, "method=mart", "method"),
        (BY_NAME, "method=mart", "method"),
        ("grid: {method: [pgd, trades]}", "method.name=mart", "method.name"),
        ("grid: {method: [trades, mart]}", "method.beta=3", "method.beta"),  # pgd's, and gone
        ("grid: {ra.weight: [1, 2]}", "ra=false", "ra"),
        ("grid: {data: [cifar10, cifar100]}", "data=mnist", "data"),
    ],
)
def test_what_the_axes_replace_is_refused(
    write: Write, text: str, assignment: str, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(write(text), [assignment])
    [problem] = [each for each in caught.value.problems if "has no effect" in each.message]
    assert (problem.key, problem.source) == (key, f"--set {assignment}")


@pytest.mark.parametrize(
    ("text", "assignment"),
    [
        (LR, "optimizer.momentum=0.5"),
        (LR, "optimizer=sgd"),
        (f"recipe: {{method: trades}}\n{METHODS}", "method.beta=3"),
        ("recipe: {method: trades}\ngrid: {method: [pgd, trades]}", "method.beta=3"),
        ("grid: {ra: [false, true]}", "ra.weight=2"),
        ("list: [{method: pgd}, {epochs: 2}]", "method=mart"),
        ("grid: {epochs: [1, 2]}", "eval=[clean, fgsm]"),
        ("grid: {epochs: [1, 2]}", "data.normalise_as=cifar10"),  # the former spelling
    ],
)
def test_what_some_combination_keeps_is_accepted(write: Write, text: str, assignment: str) -> None:
    plan_sweep(write(text), [assignment])


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_table_of_other_assignments_is_not_overwritten(
    write: Write, tmp_path: Path, dry_run: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def call(*assignments: str) -> None:
        sweep(
            name=str(write("recipe: {epochs: 1}")),
            out=out,
            engine=None,
            jobs=None,
            dry_run=dry_run,
            cost=False,
            retries=0,
            max_failures=None,
            assignments=assignments,
            track=[],
            quiet=True,
            as_json=True,
        )

    earlier = json.dumps({"format": 1, "assignments": ["epochs=1"]})
    (out / "table.json").write_text(earlier)
    for other in ([], ["validation.steps=1"], ["epochs=1", "validation.steps=1"]):
        with pytest.raises(ConfigError, match=r"Name another --out, or repeat --set epochs=1"):
            call(*other)
    (out / "table.json").write_text("{}")  # as before there was --set
    with pytest.raises(ConfigError, match="Name another --out, or leave out --set"):
        call("epochs=1")
    assert [path.name for path in out.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    "table", ['{"assignments": ["epochs=1"]}', "[", "[]", '{"assignments": 3}', None]
)
def test_the_same_assignments_and_damaged_tables_go_on(tmp_path: Path, table: str | None) -> None:
    if table is not None:
        (tmp_path / "table.json").write_text(table)
    check_folder(tmp_path, ["epochs=1"])


def test_a_plugins_regularizer_stays_a_switch_where_optuna_chooses(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`true` keeps the settings, as of rpat's own regularizers."""
    monkeypatch.setattr(REGULARIZERS, "_entries", dict(REGULARIZERS._entries))
    monkeypatch.setattr(plugins, "_loaded", {})
    (tmp_path / "own.py").write_text(
        "from rpat_cli.methods import REGULARIZERS\n"
        "REGULARIZERS.add('own', 'rpat_cli.methods.robust_perception:RobustPerception')\n"
    )
    text = OPTUNA.format("own: {choice: [true, false]}")
    file = write(f"recipe: {{plugins: [own.py]}}\n{text}")
    with trusting(code=True):
        plan_sweep(file, ["own.weight=2"])
        with pytest.raises(ConfigError, match="it is an axis of this sweep"):
            plan_sweep(file, ["own=false"])
