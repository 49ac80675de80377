"""The experiment on robust perception: its statistics against closed forms and known answers, and
what the page says of raw tables."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import MIXES, analyze_walks
from rpat_cli.methods.losses import mse

ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "docs/results.md", "docs/experiments/robust-perception.md")

Scripts = dict[str, ModuleType]


def copied(place: Path) -> Path:
    """The pages that the experiment writes, in a folder of their own."""
    for name in PAGES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    return place


def test_p_values_and_their_correction(scripts: Scripts) -> None:
    numbers = scripts["claim_numbers"]
    # One degree of freedom: t is Cauchy, and t = 1 has p = 1/2. Mean 1, sd √2, n 2.
    assert numbers.paired_p([0.0, 2.0]) == pytest.approx(0.5)
    assert numbers.paired_p([1.0]) is None
    assert numbers.paired_p([0.0, 0.0]) == 1
    # Holm 1979: times 4, 3, 2, 1 in the order of size, and never falling.
    adjusted = numbers.holm([0.01, 0.04, 0.03, 0.005], 4)
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Two of five planned: as if the other three had a p-value of 1.
    assert numbers.holm([0.01, 0.04], 5) == pytest.approx([0.05, 0.16])


def test_rank_correlation_sees_order_alone(scripts: Scripts) -> None:
    correlation = scripts["claim_numbers"].rank_correlation
    assert correlation([1, 2, 3, 40], [5, 6, 7, 8])[0] == 1
    rho, (low, high) = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert rho == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 - 6 Σd² / (n (n² - 1))
    assert low < rho < high
    assert correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None


def test_pairs_needed_have_the_power_that_a_simulation_finds(scripts: Scripts) -> None:
    numbers = scripts["claim_numbers"]
    n = numbers.pairs_needed(0.01, 0.01, alpha=0.05)
    assert n == 10  # a textbook value: effect 1, 80 %, two-sided 5 %
    draws = torch.randn(200_000, n, generator=torch.Generator().manual_seed(0)) + 1
    t = draws.mean(1) / (draws.std(1) / n**0.5)
    assert numbers.pairs_needed(0.013, 0.001) <= numbers.pairs_needed(0.01, 0.001) == 3
    share = float((t.abs() > 2.262157).float().mean())  # t(9), 97.5 %
    assert share == pytest.approx(numbers.power(n, 0.01, 0.01, 0.05), abs=0.004)


def test_the_bend_is_rpats_own_loss(scripts: Scripts) -> None:
    """From the recorded changes alone, equal to the loss computed from the logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(MIXES), 40, 5, dtype=torch.float64, generator=generator)
    y = logits[0].argmax(1)  # all right without an attack; the attack breaks most of them
    walks = {"adversarial": logits, "random": logits}
    perception = analyze_walks(walks, y, Threat("Linf", 0.1), 20)
    found = scripts["claim_data"].smoothness(perception)
    clean, half, end = logits[0], logits[MIXES.index(0.5)], logits[-1]
    loss = float(mse((clean + end) / 2, half))
    assert found["bend"] == pytest.approx(loss)
    assert found["unevenness"] == pytest.approx(4 * loss / float(mse(clean, end)))


GAIN = {0: 0.011, 1: 0.009, 2: 0.011, 3: 0.009, 4: 0.010}


def rows(scripts: Scripts, lost: float | None = None) -> list[Any]:
    """Five complete blocks, in which the term adds a point to pgd and nothing to rebat, whose
    averaged weights count; the pgd of seed 5 is alone, and no more will run. `best` breaks 1 % more
    images than the metric, and `lost` more of `pgd + ra`."""
    row = scripts["claim_data"].Row
    made = []
    for seed in GAIN:
        for variant, baseline, gain in (
            ("pgd", "", 0.0),
            ("pgd + ra", "pgd", GAIN[seed]),
            ("rebat", "", 0.0),
            ("rebat + ra", "rebat", 0.0),
        ):
            for checkpoint, more in (("best", 0.0), ("best_wa", 0.02)):
                robust = 0.6 + seed / 100 + gain + more
                trial = f"{variant}-{seed}"
                one = row(variant, baseline, seed, trial, checkpoint, "apgd-t", 0.8, robust)
                if lost is not None:
                    longer = robust - 0.01 - lost * (variant == "pgd + ra")
                    one = replace(one, robust_1000=robust, best_1000=longer)
                made.append(one)
    made.append(row("pgd", "", 5, "pgd-5", "best", "apgd-t", 0.8, 0.1))
    return [replace(each, planned=8, hours=7.25, ended=1) for each in made]


def test_the_pages_say_what_the_raw_table_holds(scripts: Scripts, tmp_path: Path) -> None:
    root, data = copied(tmp_path), tmp_path / "data"
    whole = rows(scripts, 0.003)
    scripts["raw_tables"].write_csv(whole, data / "claim-fashion-mnist.csv")
    kept = scripts["raw_tables"].read_csv(
        data / "claim-fashion-mnist.csv", scripts["claim_data"].Row
    )
    assert kept == whole
    arguments = ["--data", str(data), "--root", str(root)]
    assert scripts["claim"].main(arguments) == 0
    text = (root / PAGES[2]).read_text()
    answer = " ".join(text.partition("<!-- /answer -->")[0].split())
    headline = "the term helps 1 of 2 methods, hurts 0; no effect found in 1.** Published, on "
    assert f"**On Fashion-MNIST, small-cnn, {headline}CIFAR-10: +0.3 to +1.3 points. 5" in answer
    assert "- Helps: pgd +1.00 [+0.88, +1.12]. - No effect found: rebat +0.00" in answer
    assert "gains above +0.00 points are excluded, and with them all published ones." in answer
    clean = "pgd +0.00 [+0.00, +0.00]; rebat +0.00 [+0.00, +0.00]."
    assert f"Clean accuracy (exploratory: intervals without correction): {clean}" in answer
    assert "5 of 8 blocks, 7.2 hours of computing (summed over the trials)." in text
    assert "Complete: seeds 0, 1, 2, 3, 4; 1 incomplete and left out." in text
    assert "; an effect has p < 0.05 after Holm's correction over five." in answer
    # t = 10 √5 at 4 degrees of freedom, s² = t² / (t² + 4): p = 1 - s (1 + (1 - s²) / 2) = 2.36e-5;
    # Holm, over five planned comparisons: 5 p.
    assert "| pgd + ra<br>to pgd | 5 | 80.00 ± 0.00<br>80.00 ± 0.00 | +0.00 [+0.00, +0.00]" in text
    assert "+1.00 [+0.88, +1.12] | 0.000118 | helps |" in text
    assert "64.00 ± 1.58<br>64.00 ± 1.58 | +0.00 [+0.00, +0.00] | 1 | no effect found" in text
    # Within each run, of each variant and of all of them: two points by averaging.
    assert "| pgd + ra |  |  | +2.00 [+2.00, +2.00] (5) |  |" in text
    assert "| all, by seed |  |  | +2.00 [+2.00, +2.00] (5) |  |" in text
    # 5 pairs find 0.3 points of sd 0.1 at the level 0.01: both sides of five methods, 0.64 h each.
    assert scripts["claim_numbers"].pairs_needed(0.003, 0.001) == 5
    assert "| Fashion-MNIST, small-cnn | pgd + ra to pgd | 5 | 0.10 | 5 (32 h) |" in text
    assert "## Deviations from the plan" in text  # the rest of the page stays
    for name in PAGES[:2]:
        said = (root / name).read_text()
        means = "robust perception at its published scale are +0.00 to +1.00 points (5 pairs of "
        assert f"the mean differences in robust accuracy by {means}each method; 95 %" in said
        assert "clean accuracy are +0.00 points; 0 of 2 intervals, not corrected, exclude" in said
        assert said.count("p < 0.05 after Holm's correction over five") == 1
        helps = "it helps 1 of 2 methods (pgd +1.00 [+0.88, +1.12]), hurts none, "
        assert f"{helps}shows no effect for 1 (rebat +0.00 [+0.00, +0.00])." in said
    forest = (data / "claim-fashion-mnist-forest.svg").read_text()
    assert forest.count('class="one"') == 10
    assert "<svg" in (data / "claim-fashion-mnist-pareto.svg").read_text()
    before = [(root / name).read_text() for name in PAGES]
    scripts["claim"].main(arguments)
    assert [(root / name).read_text() for name in PAGES] == before


def test_what_is_committed_is_what_the_committed_tables_give(
    scripts: Scripts, tmp_path: Path
) -> None:
    """Also without a table: then the pages say that there is no result."""
    root, data = copied(tmp_path), scripts["raw_tables"].DATA
    plots = root / data.relative_to(ROOT)
    scripts["claim"].fill(root, plots, scripts["claim"].tables_in(data))
    made = [path.relative_to(root).as_posix() for path in plots.glob("*.svg")]
    for name in [*PAGES, *made]:
        assert (root / name).read_text() == (ROOT / name).read_text(), name


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
    assert (f"the term helps {int(lost == 0.003)} of 2 methods") in said
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
    assert "the term helps 0 of 2 methods, hurts 0; not tested in 1; no pair in 1.**" in one
    assert "Failed: pgd + ra, 4 of 5 seeds; rebat + ra, 5 of 5 seeds. - Not tested: pgd" in one
    assert "Without any pair: rebat." in one
    said = words.sentences(left(0), "")
    assert "was not tested for 1 (pgd +1.10), has no pair of rebat. The mean" in said
    assert "in brackets" not in said
    assert "The mean differences in clean accuracy are +0.00 points. Failed: pgd + ra, 4 of" in said
    none = words.answer(left())
    assert "the term helps 0 of 2 methods, hurts 0; no pair in 2.**" in none
    assert "Without any pair: pgd, rebat." in none
    assert words.sentences(left(), "") == ""
    assert "Failed trainings: 10 of 20" in scripts["claim_page"].results(left(), tmp_path)


def test_an_audit_is_shown_once_of_checkpoints_that_share_their_weights(scripts: Scripts) -> None:
    row = scripts["claim_data"].Row
    audit = {"audited": 0.5, "audit_gap": 0.01, "audit_sampled": 20, "audit_broken": 0}
    every = [row("pgd", "", 0, "a", at, "a", 0.8, 0.6, **audit) for at in ("best", "last")]
    assert scripts["claim_page"]._audits(every).count("| pgd, seed 0 |") == 1


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


def test_failures_and_collapses_are_counted_and_kept(scripts: Scripts) -> None:
    row = scripts["claim_data"].Row
    lost = row("pgd + ra", "pgd", 0, "", "", "apgd-t")
    flat = row("pgd", "", 0, "a", "best", "apgd-t", 0.1, 0.1)
    every = [lost, flat]
    assert scripts["claim_pairs"].failed(every) == [lost]
    assert scripts["claim_pairs"].collapsed(every) == [flat]
    assert scripts["claim_data"].complete_blocks(every) == every
    assert scripts["claim_pairs"].by_seed(every, "pgd", "robust") == {0: 0.1}


def test_what_it_cannot_use_is_said(
    scripts: Scripts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([str(tmp_path / "mine")], "must be named claim-fashion-mnist or"),
        ([str(tmp_path / "claim-selection")], "no table.json; run rpat sweep first"),
        (["--data", str(tmp_path)], "name the folder of a sweep"),
        (["--repeat", "1"], "--repeat needs the folder of a sweep"),
        (["--repeat", "-1", str(tmp_path)], "must be a whole number of at least 1; given '-1'"),
        (["--measure", "--jobs", "0"], "must be a whole number of at least 1; given '0'"),
    ):
        with pytest.raises(SystemExit):
            scripts["claim"].main(arguments)
        assert said in capsys.readouterr().err
