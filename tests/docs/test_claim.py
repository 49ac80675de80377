"""The experiment on robust perception: its statistics against closed forms and known answers, and
what the page says of raw tables."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import MIXES, analyze_walks
from rpat_cli.methods.losses import mse
from rpat_cli.sweep.intervals import Difference

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


def test_pairs_needed_are_found_in_few_steps(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, power, tried = scripts["claim_numbers"], scripts["claim_numbers"].power, []

    def counted(n: int, *more: float) -> float:
        tried.append(n)
        return float(power(n, *more))

    monkeypatch.setattr(numbers, "power", counted)
    for sd in (0.0001, 0.002, 0.004, 0.03):
        n = numbers.pairs_needed(0.005, sd)
        assert power(n, 0.005, sd, 0.01) >= 0.8
        assert n == 2 or power(n - 1, 0.005, sd, 0.01) < 0.8
    assert numbers.pairs_needed(0.005, 0.5) is None
    assert tried[-1] == 10_000
    assert len(tried) < 70


def test_an_end_that_is_not_zero_is_not_shown_as_zero(scripts: Scripts) -> None:
    text = scripts["claim_text"]
    for interval, mean, said in (
        ((0.00003, 0.0033), 0.0017, "+0.170 [+0.003, +0.330]"),
        ((-0.0033, -0.00003), -0.0017, "-0.170 [-0.330, -0.003]"),
        ((-0.001, 0.001), -1e-6, "+0.00 [-0.10, +0.10]"),
        ((0.0, 0.0), 0.0, "+0.00 [+0.00, +0.00]"),
        (None, 0.012, "+1.20"),
    ):
        assert text.signed(Difference(mean, interval, 8)) == said


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


FIRST = "claim-fashion-mnist"


def changed(
    scripts: Scripts, which: Callable[[Any], bool], change: Callable[[Any], Any]
) -> dict[str, list[Any]]:
    """The tables, with those rows of the first part changed."""
    return {FIRST: [change(row) if which(row) else row for row in rows(scripts, 0.003)]}


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
    headline = (
        "robust perception helps 1 of 2 methods, hurts 0; no effect found in 1.** Published, on "
    )
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
    assert text.count("\nExploratory: intervals without correction.\n") == 1
    assert (
        "`rebat`: ReBAT with the piecewise schedule of its paper. Its term is the form `teach"
        in text
    )
    assert "## Deviations from the plan" in text  # the rest of the page stays
    for name in PAGES[:2]:
        said = (root / name).read_text()
        helps = "helps 1 of 2 methods, hurts 0; no effect found in 1 (5 pairs of each method; pgd "
        helps += "+1.00 [+0.88, +1.12] points of robust accuracy, with 95 % intervals; in the mean "
        helps += "+0.00 to +1.00 points robust and +0.00 clean; published on CIFAR-10: +0.3 to "
        helps += "+1.3 robust; where no effect was found, gains above +0.00 are excluded)."
        assert f", robust perception at its published scale {helps}" in said
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


def test_the_variants_are_compared_with_the_published_scale_too(
    scripts: Scripts, tmp_path: Path
) -> None:
    """Ten steps above pgd, so nine above pgd + ra, of which the other part has the figures."""
    name, variant = "claim-fashion-mnist-terms", "pgd + ra(weight=16)"
    further = []
    for row in rows(scripts):
        if row.variant == "pgd":
            further.append(row)
        elif row.variant == "pgd + ra":
            further.append(replace(row, variant=variant, robust=row.robust + 0.09))
    tables = {FIRST: rows(scripts), name: further}
    page = scripts["claim_page"].results(tables, tmp_path).partition("### Other scales")[2]
    assert page.splitlines()[2] == "Exploratory: intervals without correction."
    assert page.count(f"| {variant}<br>to pgd | 5 |") == 1
    [line] = [line for line in page.splitlines() if f"| {variant}<br>to pgd + ra | 5 |" in line]
    assert line.endswith("| +9.00 [+9.00, +9.00] |")


def test_a_variant_without_a_finished_run_is_named(scripts: Scripts, tmp_path: Path) -> None:
    lost = changed(
        scripts,
        lambda row: row.variant == "pgd + ra",
        lambda row: replace(row, checkpoint="", clean=None, robust=None),
    )
    page = scripts["claim_page"].results(lost, tmp_path)
    assert "Without a finished run, so no mean over all: pgd + ra." in page


def test_an_audit_is_shown_once_of_checkpoints_that_share_their_weights(scripts: Scripts) -> None:
    row = scripts["claim_data"].Row
    audit = {"audited": 0.5, "audit_gap": 0.01, "audit_sampled": 20, "audit_broken": 0}
    every = [row("pgd", "", 0, "a", at, "a", 0.8, 0.6, **audit) for at in ("best", "last")]
    assert scripts["claim_page"]._audits(every).count("| pgd, seed 0 |") == 1


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
