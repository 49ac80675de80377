"""The answer of the experiment on robust perception: what it says of raw tables, at the top of the
page and as sentences on others, and when it says nothing."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_claim import FIRST, PAGES, changed, copied, rows

Scripts = dict[str, ModuleType]


@pytest.mark.parametrize("change", [{"ended": 0}, {"best_1000": None}])
def test_an_answer_that_is_taken_back_leaves_no_numbers(
    scripts: Scripts, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Because more trials run after all, or an evaluation was replaced."""
    root, name = copied(tmp_path), "claim-fashion-mnist"
    whole = rows(scripts, 0.003)
    scripts["claim"].fill(root, tmp_path, {name: whole})
    assert all("+1.00" in (root / page).read_text() for page in PAGES[:2])
    scripts["claim"].fill(root, tmp_path, {name: [replace(row, **change) for row in whole]})
    for page in PAGES[:2]:
        said = (root / page).read_text()
        assert f"<!-- claim -->\n{scripts['claim_answer'].BEFORE[page]}\n<!-- /claim -->" in said


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        (0.003, "helps"),
        (0.004, "effect of the attack"),
        (-0.004, "effect of the attack"),
        (None, "not yet checked against `best`"),
    ],
)
def test_an_effect_with_another_gap_is_one_of_the_attack(
    scripts: Scripts, lost: float | None, verdict: str
) -> None:
    """The effect is 1 point, the third of it 0.33."""
    tables = {"claim-fashion-mnist": rows(scripts, lost)}
    pair, other = scripts["claim_parts"].primary(tables, "claim-fashion-mnist")
    assert pair.gap == (None if lost is None else pytest.approx(lost))
    assert (pair.verdict, other.verdict) == (verdict, "no effect found")
    words = scripts["claim_answer"]
    said, short = " ".join(words.answer(tables).split()), words.sentences(tables, "")
    assert f"robust perception helps {int(lost == 0.003)} of 2 methods" in said
    assert bool(short) == (lost is not None)
    if verdict == "effect of the attack":
        which = "more" if lost == 0.004 else "less"
        but = f"but `best` takes 0.40 points {which} from the side with the term (1,000 images)."
        assert (
            f"since `best` changes it by more than a third: pgd +1.00 [+0.88, +1.12], {but}" in said
        )
        unconfirmed = "that the check against a stronger attack does not confirm for 1 (pgd +1.00"
        assert f"shows an effect {unconfirmed}" in short
    unchecked = "not yet checked against `best` in 1.**"
    assert (unchecked in said) == (lost is None)


def test_a_part_that_is_not_checked_is_left_out_of_the_sentences(scripts: Scripts) -> None:
    whole, words = rows(scripts, 0.003), scripts["claim_answer"]
    tables = {"claim-fashion-mnist": whole, "claim-cifar10-jpeg": whole}
    assert "\nOn CIFAR-10 (JPEG copies), small-cnn, the mean" in words.sentences(tables, "")
    tables["claim-cifar10-jpeg"] = rows(scripts)
    alone = words.sentences({"claim-fashion-mnist": whole}, "")
    assert "pgd +1.00" in alone
    assert words.sentences(tables, "") == alone


def test_nothing_is_reported_before_the_runs_have_ended(scripts: Scripts, tmp_path: Path) -> None:
    name, words = "claim-fashion-mnist", scripts["claim_answer"]
    running = [replace(row, ended=0) for row in rows(scripts, 0.003)]
    said = "5 of 8 blocks, 7.2 hours of computing; it is reported when its runs have ended"
    assert words.answer({name: running}).startswith(
        f"Fashion-MNIST, small-cnn: no result yet: {said}"
    )
    assert words.sentences({name: running}, "") == ""
    assert f"No result yet: {said}" in scripts["claim_page"].results({name: running}, tmp_path)
    complete = [replace(row, planned=5) for row in running]
    assert "helps 1 of 2" in words.sentences({name: complete}, "")


def test_what_is_no_effect_is_said_in_the_words_of_its_reason(scripts: Scripts) -> None:
    """t = 0.0058 √5 / 0.00383 = 3.4 at 4 degrees of freedom: p = 0.028, but five times that."""
    name, words = "claim-fashion-mnist", scripts["claim_answer"]
    gains = {0: 0.010, 1: 0.003, 2: 0.010, 3: 0.003, 4: 0.003}
    changed = []
    for row in rows(scripts):
        robust = 0.6 + row.seed / 100 + gains.get(row.seed, 0.0)
        changed.append(replace(row, robust=robust) if row.variant == "pgd + ra" else row)
    pair, _ = scripts["claim_parts"].primary({name: changed}, name)
    assert pair.verdict == "not significant after Holm's correction over five"
    assert pair.difference.interval[0] > 0
    called = "ot significant after Holm's correction over five"
    assert f"N{called}: pgd +0.58" in words.answer({name: changed})
    assert f"is n{called} for 1 (pgd +0.58" in words.sentences({name: changed}, "")


def test_failed_trainings_count_among_the_methods(scripts: Scripts, tmp_path: Path) -> None:
    """One pair is left of pgd, and none of rebat; then nothing is left."""
    name, words = "claim-fashion-mnist", scripts["claim_answer"]

    def left(*seeds: int) -> dict[str, list[Any]]:
        kept = []
        for row in rows(scripts):
            lost = row.baseline == "rebat" or (row.baseline and row.seed not in seeds)
            if not lost:
                kept.append(row)
            elif row.checkpoint == "best":  # one row for a training that failed
                kept.append(replace(row, trial="", checkpoint="", clean=None, robust=None))
        return {name: kept}

    one = " ".join(words.answer(left(0)).split())
    assert "1 pair of each method" in one
    assert (
        "robust perception helps 0 of 2 methods, hurts 0; not tested in 1; no pair in 1.**" in one
    )
    assert "Failed: pgd + ra, 4 of 5 seeds; rebat + ra, 5 of 5 seeds. - Not tested: pgd" in one
    assert "Without any pair: rebat." in one
    said = words.sentences(left(0), "")
    assert "was not tested for 1 (pgd +1.10), has no pair of rebat. The mean" in said
    assert "in brackets" not in said
    assert "The mean differences in clean accuracy are +0.00 points. Failed: pgd + ra, 4 of" in said
    none = words.answer(left())
    assert "robust perception helps 0 of 2 methods, hurts 0; no pair in 2.**" in none
    assert "Without any pair: pgd, rebat." in none
    assert words.sentences(left(), "") == ""
    assert "Failed trainings: 10 of 20" in scripts["claim_page"].results(left(), tmp_path)


def test_collapses_are_named_in_the_answer_and_the_sentences(scripts: Scripts) -> None:
    def flat(row: Any) -> Any:
        return replace(row, clean=0.1, robust=0.1)

    one = changed(scripts, lambda row: (row.variant, row.seed) == ("pgd + ra", 3), flat)
    every = changed(scripts, lambda row: row.variant == "rebat" and row.seed < 5, flat)
    for tables, named in ((one, "pgd + ra, seed 3"), (every, "rebat, 5 of 5 seeds")):
        said = f"Collapsed, and in all means: {named}."
        assert f"- {said}\n" in scripts["claim_answer"].answer(tables)
    assert said in scripts["claim_answer"].sentences(one | every, "")
    assert "ollapsed" not in scripts["claim_answer"].answer({FIRST: rows(scripts)})


@pytest.mark.parametrize(
    ("step", "said"),
    [  # from -step to +step: the end of the interval is 2.776 √2.5 / √5 steps of it = 1.96 steps
        (0.001, "above +0.20 points are excluded, and with them all published ones"),
        (
            0.003,
            "above +0.59 points are excluded, which leaves room for published ones up to +0.59",
        ),
        (0.01, "above +1.96 points are excluded, which leaves room for all published ones"),
    ],
)
def test_what_is_excluded_is_held_against_the_published_gains(
    scripts: Scripts, step: float, said: str
) -> None:
    tables = changed(
        scripts,
        lambda row: row.variant == "rebat + ra",
        lambda row: replace(row, robust=row.robust + step * (row.seed - 2)),
    )
    assert f"gains {said}." in " ".join(scripts["claim_answer"].answer(tables).split())
    assert f"Where no effect was found, gains {said}." in scripts["claim_answer"].sentences(
        tables, ""
    )


def test_what_it_takes_names_the_method_of_the_largest_spread(scripts: Scripts) -> None:
    words, size = scripts["claim_answer"], "a true difference of 0.5 points"
    seen = "With the spread seen of pgd, the largest (none was seen of rebat)"
    said = words.sentences({FIRST: rows(scripts, 0.003)}, "")
    assert f"{seen}, 4 pairs of each method find {size} with 80 % probability: at the" in said
    tables = changed(
        scripts,
        lambda row: row.variant == "rebat + ra",
        lambda row: replace(row, robust=row.robust + 0.3 * (row.seed - 2)),
    )
    many = f"{size} takes more than 10,000 pairs of each method."
    said = words.sentences(tables, "")
    assert said.endswith(f"With the spread seen of rebat, the largest, {many}")


def test_too_few_blocks_give_no_answer(scripts: Scripts, tmp_path: Path) -> None:
    four = [row for row in rows(scripts) if row.seed != 4]
    name, words = "claim-fashion-mnist", scripts["claim_answer"]
    said = "4 of 8 blocks, 7.2 hours of computing; its runs have ended, and the plan reports from "
    said += "5 complete blocks on"
    assert words.answer({name: four}) == f"Fashion-MNIST, small-cnn: no result: {said}."
    assert words.sentences({name: four}, "") == ""
    shown = scripts["claim_page"].results({name: four}, tmp_path)
    assert shown.endswith(f"No result: {said}.")
    further = {"claim-cifar10": four}  # three are enough
    assert "4 pairs of each method" in words.answer(further)
    assert words.sentences(further, "") == ""  # the first part has to be there
