"""The experiment on robust perception: its statistics against closed forms and known answers, and
the page from raw tables and from a sweep's folder."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.perception import MIXES, analyze_walks
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.methods.losses import mse
from rpat_cli.records import eval_file
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.sweep_file import find_sweep

SCRIPTS = Path(__file__).parent.parent.parent / "docs" / "experiments"
NAMES = ("claim", "claim_data", "claim_numbers", "claim_pairs", "claim_page", "claim_plots")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in NAMES:
            sys.modules.pop(name, None)


Scripts = dict[str, ModuleType]


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
    averaged weights count; the pgd of seed 5 is alone. `best` breaks 1 % more images than the
    metric, and `lost` more of `pgd + ra`."""
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
    return [*made, row("pgd", "", 5, "pgd-5", "best", "apgd-t", 0.8, 0.1)]


def test_the_page_says_what_the_raw_table_holds(scripts: Scripts, tmp_path: Path) -> None:
    data, page = tmp_path / "data", tmp_path / "page.md"
    whole = rows(scripts)
    scripts["claim_data"].write_csv(whole, data / "claim-fashion-mnist.csv")
    assert scripts["claim_data"].read_csv(data / "claim-fashion-mnist.csv") == whole
    page.write_text((SCRIPTS / "robust-perception.md").read_text())
    assert scripts["claim"].main(["--data", str(data), "--page", str(page), "--hours", "2"]) == 0
    text = page.read_text()
    assert "of 2 methods the term helps 1 and hurts 0" in text
    assert "from +0.00 to +1.00 points" in text
    assert "5 complete blocks (seeds 0, 1, 2, 3, 4), 1 incomplete" in text
    # t = 10 √5 at 4 degrees of freedom, s² = t² / (t² + 4): p = 1 - s (1 + (1 - s²) / 2) = 2.36e-5;
    # Holm, over five planned comparisons: 5 p.
    assert "| pgd + ra<br>to pgd | 5 | 80.00 ± 0.00<br>80.00 ± 0.00 | +0.00 [+0.00, +0.00]" in text
    assert "+1.00 [+0.88, +1.12] | 0.000118 | helps |" in text
    assert "64.00 ± 1.58<br>64.00 ± 1.58 | +0.00 [+0.00, +0.00] | 1 | no effect found" in text
    assert "Not yet checked against `best` in all pairs: pgd + ra." in text
    # 5 pairs find 0.3 points of sd 0.1 at the level 0.01: both sides of five methods, 2 h each.
    assert scripts["claim_numbers"].pairs_needed(0.003, 0.001) == 5
    assert "| pgd + ra to pgd | 0.10 | 5 (100 h) |" in text
    assert "## Deviations from the plan" in text  # the rest of the page stays
    forest = (data / "claim-fashion-mnist-forest.svg").read_text()
    assert forest.count('class="one"') == 10
    assert "<svg" in (data / "claim-fashion-mnist-pareto.svg").read_text()
    before = page.read_text()
    scripts["claim"].main(["--data", str(data), "--page", str(page), "--hours", "2"])
    assert page.read_text() == before


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0.003, "helps"), (0.004, "effect of the attack"), (None, "helps")]
)
def test_an_effect_with_another_gap_is_one_of_the_attack(
    scripts: Scripts, lost: float | None, verdict: str
) -> None:
    """The effect is 1 point, the third of it 0.33."""
    tables = {"claim-fashion-mnist": rows(scripts, lost)}
    pair, other = scripts["claim_page"].primary(tables, "claim-fashion-mnist")
    assert pair.gap == (None if lost is None else pytest.approx(lost))
    assert (pair.verdict, other.verdict) == (verdict, "no effect found")
    said = scripts["claim_page"].answer(tables)
    assert ("helps 0 and hurts 0, and for 1 the effect is one of the attack" in said) == (
        lost == 0.004
    )
    assert ("Not yet checked" in said) == (lost is None)


def test_too_few_blocks_give_no_answer(scripts: Scripts, tmp_path: Path) -> None:
    four = [row for row in rows(scripts) if row.seed != 4]
    name, page = "claim-fashion-mnist", scripts["claim_page"]
    said = "4 complete blocks are there, of the 5 that are the least"
    assert page.answer({name: four}) == f"Fashion-MNIST, small-cnn: no answer yet; {said}."
    assert page.results({name: four}, tmp_path, 2.0).endswith(f"Nothing is reported yet: {said}.")
    assert "(n = 4 seeds)" in page.answer({"claim-cifar10": four})  # a further part: three


def test_failures_and_collapses_are_counted_and_kept(scripts: Scripts) -> None:
    row = scripts["claim_data"].Row
    lost = row("pgd + ra", "pgd", 0, "", "", "apgd-t")
    flat = row("pgd", "", 0, "a", "best", "apgd-t", 0.1, 0.1)
    every = [lost, flat]
    assert scripts["claim_pairs"].failed(every) == [lost]
    assert scripts["claim_pairs"].collapsed(every) == [flat]
    assert scripts["claim_data"].complete_blocks(every) == every
    assert scripts["claim_pairs"].by_seed(every, "pgd", "robust") == {0: 0.1}


METRIC = "apgd-t-20@targets=3"


def write_table(folder: Path) -> str:
    """As `rpat sweep` writes it, with one trial that has finished, whose name is returned, and the
    next one failed."""
    from rpat_cli.sweep.table import build_table, to_json

    plan = plan_sweep(find_sweep("claim-fashion-mnist"))
    accuracy = {"clean": 0.8, METRIC: 0.6}
    of_all = dict.fromkeys(("best", "last", "best_wa", "last_wa"), accuracy)
    first, second = plan.trials[:2]
    table = build_table(plan, {first.name: of_all}, {second.name: "killed"})
    (folder / "table.json").write_text(to_json(table))
    return first.name


def test_a_sweeps_folder_becomes_rows(scripts: Scripts, tmp_path: Path) -> None:
    first = write_table(tmp_path)
    found = scripts["claim_data"].collect(tmp_path)
    assert [row.checkpoint for row in found[:5]] == ["best", "last", "best_wa", "last_wa", ""]
    assert {(row.trial, row.clean, row.robust) for row in found[:4]} == {(first, 0.8, 0.6)}
    assert (found[4].variant, found[4].seed, found[4].failed) == ("pgd + ra", 0, True)
    # Eight variants have ended nowhere, so seed 0 is no complete block.
    assert [row.pending for row in found] == [False] * 5 + [True] * 8
    scripts["claim_data"].write_csv(found, tmp_path / "raw.csv")
    assert scripts["claim_data"].read_csv(tmp_path / "raw.csv") == found
    assert scripts["claim_data"].complete_blocks(found) == []


def an_evaluation(right: dict[str, int], n: int, limit: int | None) -> Evaluation:
    """Of `n` images, all right without an attack and the first `right[label]` under it."""
    y, threat, results = torch.arange(n) % 10, Threat("Linf", 0.1), []
    for label, count in right.items():
        flags = torch.arange(n) < count
        predicted = torch.where(flags, y, (y + 1) % 10)
        broken_by = torch.where(flags, -1, 0)
        distance = torch.where(flags, torch.nan, 0.1)
        results.append(
            AttackResult(label, label, threat, {}, flags, predicted, broken_by, distance)
        )
    return Evaluation(threat, y, y, tuple(results), 0, 10, limit, classes=10)


def test_only_the_planned_evaluations_become_columns(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that a run's evals/ may hold, in the order in which it was measured."""
    data, images = scripts["claim_data"], 40
    monkeypatch.setattr(data, "LIMIT", images)
    trial = write_table(tmp_path)
    evals = tmp_path / "trials" / trial / "run" / "evals"

    def measured(
        at: int, right: dict[str, int], n: int = images, limit: int | None = images, **more: Any
    ) -> None:
        record = {
            "created": f"2026-11-22T12:00:{at:02}+00:00",
            "environment": {},
            "device": "cpu",
            "checkpoint": "best",
            "epoch": 8,
            "data": {"name": "fashion-mnist", "fingerprint": "ab"},
        }
        content = an_evaluation(right, n, limit).to_dict()
        eval_file.write_new(evals, "best", record | content | more)

    def columns() -> tuple[float | None, ...]:
        [row] = [row for row in data.collect(tmp_path) if row.checkpoint == "best"]
        return row.robust_1000, row.best_1000, row.bend

    measured(1, {METRIC: 60, "best": 50}, 100, None)  # an audit, on all images
    measured(2, {METRIC: 12, "best": 9}, 20, 20)
    measured(3, {"best": 10})
    assert columns() == (None, None, None)
    logits = torch.randn(len(MIXES), images, 10, generator=torch.Generator().manual_seed(0))
    walks = {"adversarial": logits, "random": logits}
    perception = analyze_walks(walks, logits[0].argmax(1), Threat("Linf", 0.1), 20)
    bend = pytest.approx(data.smoothness(perception)["bend"])
    measured(4, {METRIC: 24, "best": 20}, perception=perception.to_dict())
    assert columns() == (0.6, 0.5, bend)
    measured(5, {METRIC: 24, "best": 18}, limit=None)  # as of a test set that has no more images
    measured(6, {METRIC: 60, "best": 50}, 100, None)
    assert columns() == (0.6, 0.45, bend)


def test_what_it_cannot_use_is_said(
    scripts: Scripts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([str(tmp_path / "mine")], "must be named claim-fashion-mnist or"),
        ([str(tmp_path / "claim-selection")], "no table.json; run rpat sweep first"),
        (["--data", str(tmp_path)], "name the folder of a sweep"),
    ):
        with pytest.raises(SystemExit):
            scripts["claim"].main(arguments)
        assert said in capsys.readouterr().err
