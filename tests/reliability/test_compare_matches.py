"""`rpat compare` compares like with like, whatever was evaluated last, and says what it used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.cli import compare_session
from rpat_cli.data.splits import limited_choice
from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.recipe.layers import Layer, resolve, to_yaml
from rpat_cli.records.eval_file import write_new
from rpat_cli.records.metrics import EpochRecord, append_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.compare import Matched, match

LINF = Threat("Linf", 0.1)
N = 8
BEST_EPOCH, LAST_EPOCH = 2, 3


def evaluation(threat: Threat = LINF, n: int = N, **right: int) -> Evaluation:
    """`right[label]`: how many images are right after each attack, the first ones."""
    y = torch.zeros(n, dtype=torch.int64)

    def predicted(count: int) -> torch.Tensor:
        return (torch.arange(n) >= count).long()

    results = tuple(
        AttackResult(
            name=label,
            label=label,
            threat=threat,
            settings={"steps": 5},
            correct_after=predicted(count) == 0,
            predicted=predicted(count),
            broken_by=predicted(count) - 1,
            distance=torch.zeros(n),
        )
        for label, count in right.items()
        if label != "clean"
    )
    whole = Evaluation(threat, y, predicted(right.get("clean", n)), results, seed=0, batch_size=10)
    return whole if n == N else replace(whole, limit=n)


class Run:
    """A run folder with evaluations, each newer than the one before."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self.hour = 0
        path.mkdir()
        recipe = resolve([Layer("test", {"epochs": LAST_EPOCH, "threat": {"eps": 0.1}})])
        self.folder.recipe.write_text(to_yaml(recipe))
        for epoch in range(1, LAST_EPOCH + 1):
            validation = {"robust_acc": 0.5 if epoch == BEST_EPOCH else 0.4, "clean_acc": 0.6}
            record = EpochRecord(epoch, 0.1, {"loss": 1.0}, 1.0, 1.0, validation=validation)
            append_metrics(self.folder.metrics, record)

    def add(
        self,
        content: Evaluation,
        checkpoint: str = "best",
        images: str = "x",
        epoch: int | None = None,
    ) -> Path:
        self.hour += 1
        known = BEST_EPOCH if checkpoint == "best" else LAST_EPOCH
        origin: dict[str, Any] = {
            "created": f"2026-11-22T{self.hour:02}:00:00+00:00",
            "environment": {},
            "device": "cpu",
            "checkpoint": checkpoint,
            "epoch": known if epoch is None else epoch,
            "data": {"name": images, "fingerprint": images},
        }
        return write_new(self.folder.evals, checkpoint, origin | content.to_dict()).path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Run, Run]:
    return Run(tmp_path / "a"), Run(tmp_path / "b")


def matched(runs: tuple[Run, Run], **options: Any) -> Matched:
    return match(runs[0].folder.path, runs[1].folder.path, **options)


def accuracies(found: Matched) -> dict[str, tuple[int, int]]:
    return {each.label: (each.a.correct, each.b.correct) for each in found.comparisons}


def test_the_same_checkpoint_whichever_was_evaluated_last(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5)), a.add(evaluation(pgd=1), "last")
    b.add(evaluation(pgd=2), "last"), b.add(evaluation(pgd=6))
    found = matched(runs)
    assert accuracies(found)["pgd"] == (5, 6)
    assert (found.checkpoint_a, found.checkpoint_b) == ("best", "best")
    assert accuracies(matched(runs, checkpoint="last"))["pgd"] == (1, 2)


def test_attacks_are_joined_over_all_evaluations_the_newest_of_each(runs: tuple[Run, Run]) -> None:
    a, b = runs
    old = a.add(evaluation(pgd=5, fgsm=6))
    newer, newest = a.add(evaluation(pgd=4)), a.add(evaluation(clean=7))
    b.add(evaluation(pgd=6, fgsm=7, clean=8))
    found = matched(runs)
    assert accuracies(found) == {
        "clean": (7, 8),
        "pgd": (4, 6),
        "fgsm": (6, 7),
        "worst case": (4, 6),
    }
    assert found.files_a == {old: ["fgsm"], newer: ["pgd"], newest: []}
    assert found.remarks == []


def test_a_limit_is_compared_with_its_like_only(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5)), a.add(evaluation(n=4, pgd=1, fgsm=1))
    b.add(evaluation(pgd=6))
    assert accuracies(matched(runs)) == {"clean": (8, 8), "pgd": (5, 6)}
    b.add(evaluation(n=4, pgd=2))
    found = matched(runs)
    assert accuracies(found)["pgd"] == (5, 6)  # of as many attacks, those on more images
    assert any("both were also evaluated on 4 images" in remark for remark in found.remarks)


def test_all_images_and_some_of_them_are_compared_on_these(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5)), a.add(evaluation(fgsm=2)), b.add(evaluation(n=4, pgd=2, fgsm=4))
    found = matched(runs)
    taken = limited_choice(torch.zeros(N, dtype=torch.int64), 4)
    assert accuracies(found)["pgd"] == (int((taken < 5).sum()), 2)
    assert accuracies(found)["fgsm"] == (int((taken < 2).sum()), 4)
    assert "A was evaluated on all test images, and the other on 4 of them" in found.remarks[0]


def test_images_chosen_in_words_are_compared_with_their_like_only(runs: tuple[Run, Run]) -> None:
    """All labels are equal here: they do not tell which images it were."""
    a, b = runs
    a.add(replace(evaluation(n=4, pgd=1), limit="first:4"))
    b.add(replace(evaluation(n=4, pgd=2), limit="a list"))
    with pytest.raises(DataError, match="different images"):
        matched(runs)
    b.add(replace(evaluation(n=4, pgd=3), limit="first:4"))
    assert accuracies(matched(runs))["pgd"] == (1, 3)


def test_another_threat_is_not_mixed_in(runs: tuple[Run, Run]) -> None:
    a, b = runs
    for run, right in ((a, 5), (b, 6)):
        run.add(evaluation(pgd=right))
        run.add(evaluation(Threat("L2", 0.5), pgd=right - 3))
    b.add(evaluation(Threat("Linf", 0.2), pgd=0))
    found = matched(runs)
    assert accuracies(found)["pgd"] in ((5, 6), (2, 3))
    assert len(found.remarks) == 1


def test_what_is_missing_is_said(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5, fgsm=6)), b.add(evaluation(pgd=6, square=3))
    found = matched(runs)
    assert accuracies(found) == {"clean": (8, 8), "pgd": (5, 6)}
    assert found.remarks == [
        "fgsm was measured on A only: B is without it",
        "square was measured on B only: A is without it",
    ]


def test_other_settings_are_not_taken_where_there_are_the_same(runs: tuple[Run, Run]) -> None:
    a, b = runs
    same, other = evaluation(pgd=5), evaluation(pgd=2)
    other = replace(other, results=(replace(other["pgd"], settings={"steps": 50}),))
    a.add(same), a.add(other), b.add(evaluation(pgd=6))
    assert accuracies(matched(runs))["pgd"] == (5, 6)
    b.add(other)
    assert accuracies(matched(runs))["pgd"] == (2, 2)


def test_weights_that_training_has_replaced_do_not_count(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5)), a.add(evaluation(pgd=0), epoch=1), b.add(evaluation(pgd=6))
    assert accuracies(matched(runs))["pgd"] == (5, 6)


def test_a_file_brings_its_checkpoint(runs: tuple[Run, Run]) -> None:
    a, b = runs
    last = a.add(evaluation(pgd=1), "last")
    b.add(evaluation(pgd=2), "last")
    best = b.add(evaluation(pgd=6))
    found = match(last, b.folder.path)
    assert accuracies(found)["pgd"] == (1, 2)
    found = match(last, best)  # both named: compared, and said
    assert accuracies(found)["pgd"] == (1, 6)
    assert "A is the checkpoint last, and B is best" in found.remarks[0]


def test_a_checkpoint_that_was_not_evaluated_is_named(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=1), "last"), b.add(evaluation(pgd=2))
    with pytest.raises(
        RunFolderError, match=r"best of .*a has not been evaluated; evaluated: last"
    ):
        matched(runs)


def test_nothing_in_common_says_what_differs(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=1)), b.add(evaluation(pgd=2), images="z")
    with pytest.raises(DataError, match=r"different test images \(x and z\)"):
        matched(runs)
    b.add(evaluation(Threat("L2", 0.5), pgd=2))
    with pytest.raises(DataError, match="different threat models"):
        matched(runs)
    limited = replace(evaluation(n=4, pgd=2), limit=5)  # by another rule than ours
    b.add(limited)
    with pytest.raises(DataError, match=r"8 images of x .*, and .*4 images of x .*same --limit"):
        matched(runs)


def test_a_damaged_evaluation_is_said_and_blocks_no_other(runs: tuple[Run, Run]) -> None:
    a, b = runs
    a.add(evaluation(pgd=5)), b.add(evaluation(pgd=6))
    (a.folder.evals / "odd.json").write_text("{")
    found = matched(runs)
    assert accuracies(found)["pgd"] == (5, 6)
    assert "odd.json is damaged" in found.remarks[0]


def test_the_files_used_are_shown(
    runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    one, two = a.add(evaluation(fgsm=5)), a.add(evaluation(pgd=5))
    other = b.add(evaluation(pgd=6, fgsm=6))
    paths = a.folder.path, b.folder.path
    compare_session.compare(*paths, checkpoint=None, changed=False, as_json=False)
    shown = capsys.readouterr().out
    assert f"A: {one}  (best: fgsm)" in shown
    assert f"A: {two}  (best: clean, pgd)" in shown
    assert f"B: {other}  (best: clean, fgsm, pgd)" in shown
    compare_session.compare(*paths, checkpoint=None, changed=False, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["files"]["a"] == {str(one): ["fgsm"], str(two): ["pgd"]}
    assert (record["a"], record["b"]) == (str(two), str(other))
