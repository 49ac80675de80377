"""Fast evaluation: the search may be as wrong as it likes, what counts is float32 on the plain
model."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import make_toy

from rpat_cli import hardware
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation import fast
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.desk import Desk, content_of, packed
from rpat_cli.evaluation.suite import parse_suite

THREAT = Threat("Linf", 0.1)

pytestmark = pytest.mark.usefixtures("small_budgets")


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is emulated where it is not native, with the same results."""
    monkeypatch.setattr(hardware, "native_bf16", lambda device: True)
    monkeypatch.setattr(hardware, "BF16_PAYS_FROM", 0)


def run(toy: Any, attacks: str, **options: Any) -> Evaluation:
    options.setdefault("fast", True)
    return evaluate(toy.model, toy.x, toy.y, parse_suite(attacks), THREAT, batch_size=48, **options)


def seen_by(model: nn.Module) -> list[torch.dtype]:
    """The precisions of the passes, as they come."""
    dtypes: list[torch.dtype] = []
    model[0].register_forward_hook(lambda _, __, out: dtypes.append(out.dtype))
    return dtypes


def test_it_searches_in_bfloat16_and_ends_in_float32(toy: Any) -> None:
    dtypes = seen_by(toy.model)
    (result,) = run(toy, "autoattack").results
    names = [stage.name for stage in result.stages]
    assert names == ["apgd-ce", "apgd-t", "fab-t", "square", "apgd-dlr in float32"]
    assert dtypes.count(torch.bfloat16) > 100
    # The last stage alone takes a pass to begin, one for each step, and one for the clean images.
    assert set(dtypes[-6:]) == {torch.float32}
    assert result.settings["search"] == "bfloat16"
    assert result.settings["checked_by"] == "apgd-dlr in float32"
    [note] = [note for note in result.notes if note.startswith("fast:")]
    last = result.stages[-1]
    assert f"The {last.attacked} images" in note
    assert f"broke {last.broken}." in note


def test_a_search_that_finds_nothing_leaves_what_the_check_finds(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fast.Reduced, "forward", lambda self, x: 0 * x.flatten(1)[:, :1] + self.inner(toy.x[:1])
    )
    (result,) = run(toy, "autoattack").results
    (alone,) = run(toy, "autoattack:apgd-dlr", fast=False).results
    assert torch.equal(result.correct_after, alone.correct_after)
    assert 0 < result.robust_acc < run(toy, "clean").clean.value


def test_a_search_that_claims_too_much_breaks_nothing(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point looks misclassified to it; most of those that it returns are not."""
    monkeypatch.setattr(fast.Reduced, "forward", lambda self, x: -self.inner(x))
    (result,) = run(toy, "autoattack:square").results
    assert result.stages[0].broken <= 2
    assert result.stages[0].attacked == run(toy, "clean").clean.correct


def test_what_a_check_would_cost_as_much_as_is_not_searched_fast(toy: Any) -> None:
    dtypes = seen_by(toy.model)
    quick, exact = run(toy, "pgd-20,apgd-ce"), run(toy, "pgd-20,apgd-ce", fast=False)
    assert set(dtypes) == {torch.float32}
    for one, other in zip(quick.results, exact.results, strict=True):
        assert torch.equal(one.correct_after, other.correct_after)
        assert "search" not in one.settings
        assert one.notes == other.notes


def test_without_native_bfloat16_it_is_the_exact_evaluation(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "native_bf16", lambda device: False)
    said: list[str] = []
    result = run(toy, "autoattack", on_remark=said.append)
    assert result.to_dict()["results"][0]["stages"][-1]["name"] == "square"
    begin = "fast: the search is in float32, too: "
    assert said.pop() == f"{begin}cpu does not compute bfloat16 natively here."
    monkeypatch.setattr(hardware, "native_bf16", lambda device: True)
    monkeypatch.setattr(hardware, "BF16_PAYS_FROM", 1_000_000)
    run(toy, "autoattack:square", on_remark=said.append)
    assert said == [f"{begin}networks of less than 1,000,000 parameters may be slower in bfloat16."]


def test_other_attacks_are_searched_fast_and_read_back(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fast.is_worth_it(*parse_suite("pgd-50x10"))
    monkeypatch.setattr(fast, "WORTH_IT", 0)
    result = run(toy, "pgd-5")
    again = Evaluation.from_dict(result.to_dict()).results[0]
    assert [stage.name for stage in again.stages] == ["pgd", "apgd-dlr in float32"]
    assert again.settings["search"] == "bfloat16"


def test_two_classes_are_checked_by_the_cross_entropy() -> None:
    (result,) = run(make_toy(2), "autoattack").results
    assert result.settings["checked_by"] == "apgd-ce in float32"


def test_a_model_without_gradients_is_said_to_have_none(toy: Any) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return toy.model(x.detach())

    result = evaluate(Cut(), toy.x, toy.y, parse_suite("autoattack"), THREAT, fast=True)
    [flag] = [flag for flag in result.results[0].flags if "no gradient reaches" in flag]
    assert "so apgd-ce, apgd-t, fab-t, apgd-dlr in float32 could not take a step" in flag


def test_it_reaches_other_processes(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "WORTH_IT", 0)

    class OneDesk:
        def give(self, bench: Any) -> None:
            self.desk = Desk(lambda device: device)
            content_of(self.desk.answer(packed(bench)))

        def execute(self, tasks: Any) -> Any:
            return [content_of(self.desk.answer(packed(task))) for task in tasks]

    suite = "autoattack:apgd-ce+square,pgd-5"
    here, there = run(toy, suite), run(toy, suite, workers=OneDesk())
    for one, other in zip(here.results, there.results, strict=True):
        assert torch.equal(one.correct_after, other.correct_after)
        assert [s.name for s in one.stages] == [s.name for s in other.stages]
    assert pickle.dumps(there.to_dict())
