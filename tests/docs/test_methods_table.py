"""The table of all methods on the page of results: from known rows, and as it is committed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rpat_cli.methods import METHODS


@pytest.fixture(scope="module")
def methods(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["methods_table"]


def row(methods: ModuleType, variant: str, seed: int, **given: Any) -> Any:
    known = {"checkpoint": "best", "clean": 0.8, "pgd_20": 0.6, "apgd_t": 0.5}
    known |= {"forward": 2.0, "backward": 2.0, "collapsed": 0, "baseline": ""}
    return methods.Row(variant=variant, seed=seed, **known | given)


def test_a_row_has_means_differences_passes_and_the_time_of_a_step(methods: ModuleType) -> None:
    rows = [
        row(methods, "pgd", 0, apgd_t=0.50),
        row(methods, "pgd", 1, apgd_t=0.52),
        row(methods, "pgd", 0, apgd_t=0.40, checkpoint="last"),
        row(methods, "pgd", 1, apgd_t=0.40, checkpoint="last"),
        row(methods, "pgd + ra", 0, apgd_t=0.51, baseline="pgd", forward=13.0, collapsed=7),
        row(methods, "pgd + ra", 1, apgd_t=0.53, baseline="pgd", forward=13.0),
        row(methods, "pgd + ra", 0, checkpoint="last", baseline="pgd", forward=13.0, collapsed=7),
        row(methods, "pgd + ra", 1, checkpoint="last", baseline="pgd", forward=13.0),
    ]
    steps = [
        methods.Step("pgd", 0.02, 0.01, 0.03, 5),
        methods.Step("pgd + ra", 0.025, 0.02, 0.03, 5),
    ]
    lines = methods.page(rows, steps).splitlines()
    assert lines[2] == (
        "| pgd | 2 + 2 | 1.00 | 80.00 ± 0.00 | 60.00 ± 0.00 | 51.00 ± 1.41 | 40.00 ± 0.00 |"
    )
    assert lines[3].startswith("| pgd + ra | 13 + 2 | 1.25 | 80.00 ± 0.00<br>+0.00 [+0.00, +0.00]")
    # One above in both seeds: a difference without spread, though both sides have one.
    assert "| 52.00 ± 1.41<br>+1.00 [+1.00, +1.00] | 50.00 ± 0.00<br>+10.00" in lines[3]
    assert "Of the 1 differences" in lines[5]
    assert "above 0 in 1 and below 0 in 0" in lines[5]
    assert lines[6].endswith("reported 1 of these 4 trainings: `pgd + ra`, seed 0, in epoch 7.")


def test_the_methods_that_pgd_flatters_are_named(methods: ModuleType) -> None:
    best = [
        row(methods, "pgd", 0, pgd_20=0.62, apgd_t=0.61),
        row(methods, "mail", 0, pgd_20=0.60, apgd_t=0.54),
        row(methods, "trades", 0, pgd_20=0.60, apgd_t=0.58),
        row(methods, "trades + ra", 0, pgd_20=0.90, apgd_t=0.10, baseline="trades"),
    ]
    last = [replace(each, checkpoint="last", apgd_t=0.1) for each in best]
    rows = [*best, *last]
    said = methods.page(rows, []).splitlines()[-1]
    assert "PGD-20 says 2.00 points more" in said
    assert said.endswith("for `mail` (6.00), `trades` (2.00), `pgd` (1.00).")


def test_averaged_weights_are_a_row_of_their_own(methods: ModuleType) -> None:
    rows = [
        row(methods, "rebat", 0, checkpoint=checkpoint, apgd_t=apgd_t)
        for checkpoint, apgd_t in (("best", 0.5), ("last", 0.4), ("best_wa", 0.6), ("last_wa", 0.7))
    ]
    plain, averaged = methods.page(rows, []).splitlines()[2:4]
    assert plain.startswith("| rebat | ")
    assert plain.endswith("| 50.00 | 40.00 |")
    assert averaged.startswith("| rebat (EMA) | ")
    assert averaged.endswith("| 60.00 | 70.00 |")


def test_a_sweep_that_is_not_finished_makes_no_table(methods: ModuleType, tmp_path: Path) -> None:
    table = {"failures": {}, "rows": [{"label": "pgd", "n": 2, "planned": 3}]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match="not finished: pgd"):
        list(methods.collect(tmp_path))


def test_what_several_sweeps_train_has_to_agree(
    methods: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"a": [row(methods, "pgd", 0)], "b": [row(methods, "pgd", 0), row(methods, "gat", 0)]}
    monkeypatch.setattr(methods, "collect", lambda folder: found[folder.name])
    assert len(methods.joined([Path("a"), Path("b")])) == 2
    found["b"][0] = row(methods, "pgd", 0, apgd_t=0.6)
    with pytest.raises(ValueError, match="pgd, seed 0: other figures"):
        methods.joined([Path("a"), Path("b")])


def test_what_was_not_trained_again_stays(
    methods: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = [row(methods, "pgd", 0, apgd_t=0.6), row(methods, "alp", 0)]
    monkeypatch.setattr(methods, "collect", lambda folder: again)
    earlier = [row(methods, variant, seed) for variant in ("pgd", "gat") for seed in (0, 1)]
    assert methods.joined([Path("a")], earlier) == [*earlier[2:], *again]


def test_every_method_has_its_rows(methods: ModuleType) -> None:
    rows = methods.read_csv(methods.DATA / "methods.csv", methods.Row)
    ours = {name for name in METHODS if not METHODS.is_added(name)}
    for ra in (False, True):
        trained = {row.variant for row in rows if row.variant.endswith(" + ra") == ra}
        assert {re.split(r"[( ]", variant)[0] for variant in trained} == ours


def test_the_page_is_that_of_the_committed_tables(methods: ModuleType) -> None:
    rows = methods.read_csv(methods.DATA / "methods.csv", methods.Row)
    steps = methods.read_csv(methods.DATA / "methods-time.csv", methods.Step)
    text = methods.PAGE.read_text(encoding="utf-8")
    assert methods.between(text, "results", methods.page(rows, steps)) == text
    readme = methods.README.read_text(encoding="utf-8")
    assert methods.between(readme, "methods", methods.headline(rows)) == readme
    # Every variant of all sweeps, over three seeds.
    assert {step.variant for step in steps} == {row.variant for row in rows}
    assert {row.seed for row in rows} == {0, 1, 2}
