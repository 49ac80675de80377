import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.compare import WORST, compare, mcnemar, paired_interval
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.records.eval_file import write_new
from rpat_cli.reports.comparison import changed_images
from rpat_cli.runs.compare import compare_files

LINF = Threat("Linf", 0.1)


def evaluation(clean: str, threat: Threat = LINF, **attacks: str) -> Evaluation:
    """From texts of 0 and 1 per image: right without an attack, and after each one."""
    y = torch.zeros(len(clean), dtype=torch.int64)

    def wrong(text: str) -> torch.Tensor:
        return torch.tensor([int(c == "0") for c in text])

    results = tuple(
        AttackResult(
            name=label,
            label=label,
            threat=threat,
            settings={},
            correct_after=wrong(text) == 0,
            predicted=wrong(text),
            broken_by=wrong(text) - 1,
            distance=torch.zeros(len(clean)),
        )
        for label, text in attacks.items()
    )
    return Evaluation(threat, y, wrong(clean), results, seed=0, batch_size=10)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (8, 2, 2 * 56 / 1024),
        (1200, 1200, 1.0),
    ],
)
def test_mcnemar_is_exact_and_two_sided(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"), [(0, 0, 50), (2, 12, 50), (9, 1, 40), (0, 3, 9)]
)
def test_the_interval_of_the_difference_is_that_of_the_score_test(
    only_a: int, only_b: int, n: int
) -> None:
    """At either end the difference, were it true, is 1.96 standard deviations from the observed."""
    for gap in paired_interval(only_a, only_b, n):
        # The likeliest share of images that A alone gets right, given the difference, on a grid.
        grid = torch.linspace(max(0.0, -gap), (1 - gap) / 2, 400_001, dtype=torch.float64)
        parts = ((only_a, grid), (only_b, grid + gap), (n - only_a - only_b, 1 - 2 * grid - gap))
        q = grid[sum(torch.xlogy(torch.tensor(k), p) for k, p in parts).nan_to_num(-1e9).argmax()]
        deviations = (only_b - only_a - n * gap) / (n * (2 * q + gap - gap**2)).sqrt()
        assert abs(deviations) == pytest.approx(1.959964, abs=1e-3)
    if only_a == only_b == 0:
        assert paired_interval(0, 0, n) == pytest.approx(
            (-(1.96**2) / (n + 1.96**2), 1.96**2 / (n + 1.96**2)), abs=1e-4
        )


def test_each_attack_and_the_worst_case_are_compared_image_by_image() -> None:
    a = evaluation("111111", fgsm="111100", pgd="110000")
    b = evaluation("011111", fgsm="001111", pgd="001100")
    clean, fgsm, _, worst = compare(a, b)
    assert (clean.label, clean.only_a, clean.only_b, clean.p) == ("clean", (0,), (), 1.0)
    assert (fgsm.only_a, fgsm.only_b) == ((0, 1), (4, 5))
    assert (worst.label, worst.a.correct, worst.b.correct) == (WORST, 2, 2)
    assert [each.label for each in compare(a, evaluation("111111", pgd="111111"))] == [
        "clean",
        "pgd",
    ]


def test_changed_images_are_named_up_to_ten_or_all_of_them() -> None:
    many = compare(evaluation("1" * 20), evaluation("0" * 12 + "1" * 8))
    line, none, hint = changed_images(many)
    assert line == "clean, only A is right: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert none == "clean, only B is right: none"
    assert "--changed" in hint
    assert changed_images(many, None) == [line.replace(" and 2 more", ", 10, 11"), none]
    assert len(changed_images(compare(evaluation("11"), evaluation("10")))) == 2


def test_only_the_same_images_and_the_same_threat_can_be_compared() -> None:
    with pytest.raises(DataError, match="different images"):
        compare(evaluation("111"), evaluation("1111"))
    with pytest.raises(DataError, match="same --norm and --eps"):
        compare(evaluation("111"), evaluation("111", Threat("L2", 0.5)))


def test_attacks_of_one_name_with_other_settings_are_not_compared() -> None:
    def stepping(step_size: float, library: str) -> Evaluation:
        plain = evaluation("111", pgd="110")
        settings = {"step_size": step_size, "library": library}
        return replace(plain, results=(replace(plain["pgd"], settings=settings),))

    assert len(compare(stepping(0.01, "1.0"), stepping(0.01, "1.1"))) == 2
    with pytest.raises(DataError, match="the settings of pgd differ"):
        compare(stepping(0.01, "1.0"), stepping(0.02, "1.0"))


def test_files_and_run_folders_are_read_and_mistakes_are_named(tmp_path: Path) -> None:
    def write(run: str, content: Evaluation, images: str = "x", at: str = "12:00") -> Path:
        evals = tmp_path / run / "evals"
        origin = {
            "created": f"2026-11-22T{at}:00+00:00",
            "environment": {},
            "device": "cpu",
            "checkpoint": "best",
            "epoch": 1,
            "data": {"name": images, "fingerprint": images},
        }
        file = write_new(evals, "best", origin | content.to_dict()).path
        (evals.parent / "recipe.yaml").touch()
        return file

    a, b = write("a", evaluation("1111")), write("b", evaluation("1000"))
    older = write("b", evaluation("1100"), at="11:00")
    assert compare_files(a, b)[0].only_a == (1, 2, 3)
    assert compare_files(tmp_path / "a", tmp_path / "b") == compare_files(a, b)
    (tmp_path / "b" / "recipe.yaml").unlink()  # as in runs/external
    assert compare_files(tmp_path / "a", tmp_path / "b") == compare_files(a, b)
    other = write("c", evaluation("1111"), images="z")
    with pytest.raises(DataError, match=r"different test images \(x and z\)"):
        compare_files(a, other)
    with pytest.raises(RunFolderError, match="there is no evaluation"):
        compare_files(a, tmp_path / "absent.json")
    with pytest.raises(RunFolderError, match="is not an evaluation"):
        compare_files(a, tmp_path / "a" / "recipe.yaml")
    part = json.loads(older.read_text())
    del part["clean_predicted"]
    older.write_text(json.dumps(part))
    with pytest.raises(RunFolderError, match=r"damaged one \('clean_predicted' is missing\)"):
        compare_files(a, older)
    b.unlink()
    older.unlink()
    with pytest.raises(RunFolderError, match="not been evaluated yet"):
        compare_files(a, tmp_path / "b")
