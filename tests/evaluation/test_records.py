"""What is recorded of each sample beside its flag: margin and confidence, in closed form, and
through JSON."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.attack_result import AttackResult, StageResult
from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.parallel.stages import SampleStates
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.evaluation.verify import Prediction

LINF = Threat("Linf", 0.1)

pytestmark = pytest.mark.usefixtures("small_budgets")


class Linear(nn.Module):
    """Logits (s, -s) with s the sum of four pixels, each less one half."""

    def forward(self, x: Tensor) -> Tensor:
        s = (x - 0.5).flatten(1).sum(dim=1)
        return torch.stack([s, -s], dim=1)


def grey(means: Tensor) -> tuple[Tensor, Tensor]:
    return means.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), torch.zeros(
        len(means), dtype=torch.int64
    )


def test_margin_and_confidence_of_a_linear_model_are_those_of_its_closed_form() -> None:
    means = torch.tensor([0.3, 0.45, 0.55, 0.58, 0.65, 0.75])
    evaluation = evaluate(Linear(), *grey(means), parse_suite("clean,pgd-40"), LINF)
    clean = 8 * (means - 0.5)  # 2 s
    attacked = torch.where(
        clean > 0, clean - 8 * 0.1, clean
    )  # every pixel down by eps; what is wrong stays as it is
    assert evaluation.clean_margin is not None
    assert evaluation.clean_confidence is not None
    torch.testing.assert_close(evaluation.clean_margin, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        evaluation.clean_confidence, clean.abs().sigmoid(), atol=1e-5, rtol=0
    )
    for label, margin in (("clean", clean), ("pgd-40", attacked)):
        found = evaluation[label]
        assert found.margin is not None
        assert found.confidence is not None
        torch.testing.assert_close(found.margin, margin, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.confidence, margin.abs().sigmoid(), atol=1e-5, rtol=0)
    assert evaluation["pgd-40"].correct_after.tolist() == [False, False, False, False, True, True]


def test_margins_flags_and_predictions_tell_of_the_same_image(toy: Any) -> None:
    suite = parse_suite("clean,noise,pgd-5,autoattack:apgd-ce+square")
    evaluation = evaluate(toy.model, toy.x, toy.y, suite, LINF, batch_size=16)
    assert evaluation.clean_margin is not None
    assert 0 < evaluation.robust.value < 1
    for found in evaluation.results:
        assert found.margin is not None
        assert found.confidence is not None
        assert torch.equal(found.correct_after, found.margin > 0)
        assert (found.margin <= evaluation.clean_margin).all()
        assert (
            (found.confidence >= 0.1) & (found.confidence <= 1)
        ).all()  # the largest of ten cannot be less
        assert torch.equal(found.correct_after, found.predicted == toy.y)


def chunk(stage: int, broken: bool, margin: float) -> ChunkResult:
    return ChunkResult(
        label="autoattack",
        stage=stage,
        chunk=0,
        indices=torch.tensor([1]),
        broken=torch.tensor([broken]),
        predicted=torch.tensor([int(broken)]),
        margin=torch.tensor([margin]),
        confidence=torch.tensor([0.5 + stage / 100]),
        distance=torch.tensor([0.1]),
        strays=0,
        seconds=0.0,
        forward=1,
        backward=1,
    )


def test_the_smallest_margin_of_all_stages_counts_unless_one_breaks_the_sample() -> None:
    y = torch.zeros(2, dtype=torch.int64)
    state = SampleStates.clean(
        Prediction(y.clone(), torch.tensor([9.0, 3.0]), torch.tensor([0.9, 0.8])), y
    )
    for stage, margin in enumerate([2.0, 1.0, 5.0]):
        state.add(chunk(stage, False, margin))
    assert (state.margin.tolist(), state.robust.tolist()) == ([9.0, 1.0], [True, True])
    assert state.confidence.tolist() == pytest.approx([0.9, 0.51])
    state.add(chunk(3, True, 1.0))  # no smaller: what breaks it counts all the same
    assert (state.robust.tolist(), state.predicted.tolist()) == ([True, False], [0, 1])
    assert state.confidence.tolist() == pytest.approx([0.9, 0.53])


def test_steps_are_the_passes_that_each_attacked_sample_took(toy: Any) -> None:
    evaluation = evaluate(
        toy.model, toy.x, toy.y, parse_suite("pgd-7,autoattack:square+apgd-ce"), LINF
    )
    (pgd,) = evaluation["pgd-7"].stages
    assert pgd.steps == {"forward": 8.0, "backward": 7.0}  # and one to predict again
    result = evaluation["autoattack:square+apgd-ce"]
    square, apgd = result.stages
    assert square.backward == 0  # it asks for no gradient
    assert apgd.steps is not None
    assert apgd.steps["backward"] >= 1
    assert result.forward == (square.forward or 0) + (apgd.forward or 0)
    assert StageResult("pgd", attacked=5, broken=2, seconds=1.0).steps is None


def from_texts(clean: str, y: str, **attacks: tuple[str, str]) -> Evaluation:
    """From one digit per image: what is predicted without an attack, the label, and after each
    attack with margins."""

    def digits(text: str) -> Tensor:
        return torch.tensor([int(digit) for digit in text])

    results = tuple(
        AttackResult(
            name=label,
            label=label,
            threat=LINF,
            settings={},
            correct_after=digits(after) == digits(y),
            predicted=digits(after),
            broken_by=digits(after) * 0 - 1,
            distance=torch.full((len(y),), torch.nan),
            confidence=digits(tenths) / 10,
        )
        for label, (after, tenths) in attacks.items()
    )
    return Evaluation(LINF, digits(y), digits(clean), results, seed=0, batch_size=10, classes=3)


def test_json_tells_by_class_and_what_the_strongest_attack_does() -> None:
    evaluation = from_texts("001112", "001122", fgsm=("001012", "555555"), pgd=("011012", "955555"))
    record = evaluation.to_dict()
    assert evaluation.strongest is evaluation["pgd"]
    assert record["per_class"] == [
        {"n": 2, "clean_correct": 2, "robust_correct": 1},
        {"n": 2, "clean_correct": 2, "robust_correct": 1},
        {"n": 2, "clean_correct": 1, "robust_correct": 1},
    ]
    worst = {"class": 0, "robust_acc": 0.5, "interval_95": list(Accuracy(1, 2).interval), "n": 2}
    assert record["worst_class"] == worst
    strongest = record["strongest"]
    assert (strongest["label"], strongest["confusion"]) == (
        "pgd",
        [[1, 1, 0], [1, 1, 0], [0, 1, 1]],
    )
    # Of the five at 0.5 two are right, and the one at 0.9 is.
    assert strongest["calibration"]["ece"] == pytest.approx((5 * 0.1 + 0.1) / 6)
    assert record["clean_calibration"] is None  # no confidence was given
    assert from_texts("0", "0").to_dict()["strongest"] is None


def test_single_precision_comes_back_bit_for_bit(toy: Any) -> None:
    evaluation = evaluate(toy.model, toy.x, toy.y, parse_suite("pgd-3"), LINF)
    back = Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict(), allow_nan=False)))
    for name in ("clean_margin", "clean_confidence"):
        assert torch.equal(getattr(back, name), getattr(evaluation, name))
    for name in ("margin", "confidence"):
        assert torch.equal(getattr(back["pgd-3"], name), getattr(evaluation["pgd-3"], name))
    assert (back.classes, back["pgd-3"].stages) == (10, evaluation["pgd-3"].stages)


def test_files_of_versions_that_did_not_record_them_still_load(toy: Any) -> None:
    whole = evaluate(toy.model, toy.x, toy.y, parse_suite("clean,pgd-3"), LINF)
    new = {
        "classes",
        "per_class",
        "worst_class",
        "clean_calibration",
        "strongest",
        "clean_margin",
        "clean_confidence",
    }
    record = {key: value for key, value in whole.to_dict().items() if key not in new}
    for result in record["results"]:
        del result["margin"], result["confidence"]
        for stage in result["stages"]:
            del stage["forward"], stage["backward"], stage["steps"]
    old = Evaluation.from_dict(record)
    assert (
        old.clean_margin,
        old.clean_calibration,
        old["pgd-3"].margin,
        old["pgd-3"].calibration,
    ) == (None,) * 4
    assert torch.equal(old.worst_case, whole.worst_case)
    assert old["pgd-3"].stages[0].steps is None
    assert old.class_count == 10
    again = old.to_dict()
    assert again["strongest"]["confusion"] == whole.to_dict()["strongest"]["confusion"]
    assert again["strongest"]["calibration"] is None
    assert isinstance(whole.clean_calibration, Calibration)
