"""The training loop on tiny random images: resuming, divergence, the record of its terms and
passes."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from loops import Recorder, make_loop, same, weights
from torch import Tensor

from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.engine.callbacks import Validation
from rpat_cli.engine.schedules import OneCycle
from rpat_cli.errors import DivergenceError
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.compose import compose

METHODS_WITHOUT_TEACHER = [name for name in METHODS if name != "rebat"]


@pytest.mark.parametrize("name", METHODS_WITHOUT_TEACHER)
def test_robust_perception_of_weight_0_changes_no_bit(name: str) -> None:
    def trained(*regularizers: Any) -> dict[str, Tensor]:
        loop = make_loop(compose(METHODS[name](), *regularizers))
        loop.run()
        return weights(loop)

    plain = trained()
    assert same(plain, trained(REGULARIZERS["ra"](weight=0.0)))
    assert same(plain, trained(REGULARIZERS["ra"](start_epoch=2)))
    if name != "standard":  # without a perturbation the term is 0
        assert not same(plain, trained(REGULARIZERS["ra"](weight=1.0)))


def test_before_its_start_epoch_robust_perception_costs_no_pass() -> None:
    recorder = Recorder()
    make_loop(
        compose(METHODS["pgd"](), REGULARIZERS["ra"](start_epoch=1)), callbacks=(recorder,)
    ).run()
    first, second = recorder.epochs
    steps = 3
    assert (first.forward, first.backward) == (
        steps * (2 + 1),
        steps * (2 + 1),
    )  # two attack steps and the update
    assert second.forward == steps * (2 + 1 + 2)  # f(x) and f(x_mix) come on top


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stop_at", [(1, 0), (1, 2), (0, 1)])
def test_a_stopped_training_goes_on_to_the_same_bits(
    stop_at: tuple[int, int], dtype: torch.dtype | None
) -> None:
    settings: dict[str, Any] = {"epochs": 3, "dtype": dtype}
    method = compose(METHODS["consistency"](), REGULARIZERS["ra"]())
    whole_record, first_record, second_record = Recorder(), Recorder(), Recorder()
    whole = make_loop(method, callbacks=(whole_record,), **settings)
    whole.run()
    first = make_loop(
        method,
        callbacks=(first_record,),
        should_stop=lambda loop: (loop.epoch, loop.step) >= stop_at,
        **settings,
    )
    assert not first.run()
    state = first.state_dict()
    assert (state["epoch"], state["step"]) == stop_at
    assert bool(state["scaler"]) == (dtype is torch.float16)
    second = make_loop(method, callbacks=(second_record,), **settings)
    torch.rand(100)  # whatever else happened in the new process
    second.load_state_dict(state)
    assert second.run()
    assert same(weights(whole), weights(second))
    joined = [*first_record.epochs, *second_record.epochs]
    assert [r.train for r in joined] == [r.train for r in whole_record.epochs]
    assert [(r.epoch, r.forward, r.backward) for r in joined] == [
        (r.epoch, r.forward, r.backward) for r in whole_record.epochs
    ]


def test_each_epoch_has_its_own_order_and_sees_each_image_once() -> None:
    seen: list[list[float]] = []

    @dataclass(frozen=True)
    class Watch:
        def __call__(self, step: StepContext) -> Outcome:
            seen.append(step.x.mean(dim=(1, 2, 3)).tolist())
            logits = step.model(step.x)
            return Outcome({"ce": logits.square().mean()}, step.x, step.x, logits)

    loop = make_loop(Watch())
    loop.augment = lambda x: x
    loop.run()
    first, second = sum(seen[:3], []), sum(seen[3:], [])
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 24


def test_the_seed_decides_the_order() -> None:
    def visited(seed: int) -> list[float]:
        seen: list[float] = []
        loop = make_loop(METHODS["standard"](), epochs=1, seed=seed)
        loop.augment = lambda x: (seen.extend(x.mean(dim=(1, 2, 3)).tolist()), x)[1]
        loop.run()
        return seen

    assert visited(0) == visited(0) != visited(1)
    assert sorted(visited(0)) == sorted(visited(1))


def test_the_rate_of_a_step_is_that_of_its_middle_so_never_0() -> None:
    recorder = Recorder()
    loop = make_loop(METHODS["standard"](), callbacks=(recorder,))
    loop.schedule = OneCycle(peak=0.5)  # it begins and ends at 0
    loop.run()
    assert [record.lr for record in recorder.steps] == pytest.approx(
        [0.1 * k / 6 for k in (1, 3, 5, 5, 3, 1)]
    )


def test_a_loss_that_is_not_finite_never_reaches_the_weights() -> None:
    @dataclass(frozen=True)
    class Diverging:
        def __call__(self, step: StepContext) -> Outcome:
            logits = step.model(step.x)
            bad = logits.mean() * (math.nan if step.epoch == 1 else 1.0)
            return Outcome({"good": logits.square().mean(), "bad": bad}, step.x, step.x, logits)

    loop = make_loop(Diverging())
    with pytest.raises(DivergenceError, match=r"epoch 2, step 1: bad is nan.*--lr"):
        loop.run()
    assert all(value.isfinite().all() for value in weights(loop).values())


@pytest.mark.parametrize("reduced", [torch.bfloat16, torch.float16])
def test_reduced_precision_computes_the_loss_near_that_of_float32(reduced: torch.dtype) -> None:
    records = []
    for dtype in (None, reduced):
        recorder = Recorder()
        loop = make_loop(dtype=dtype, callbacks=(recorder,))
        loop.run()
        assert all(p.dtype == torch.float32 for p in loop.model.parameters())
        records.append([step.terms["loss"] for step in recorder.steps])
    assert records[0] == pytest.approx(records[1], rel=0.05)
    assert records[0] != records[1]


def test_a_step_whose_float16_gradient_overflows_is_left_out_and_the_scale_is_lowered() -> None:
    @dataclass(frozen=True)
    class Steep:
        def __call__(self, step: StepContext) -> Outcome:
            logits = step.model(step.x)
            return Outcome({"steep": 1e4 * logits.float().sum()}, step.x, step.x, logits)

    loop = make_loop(Steep(), dtype=torch.float16, should_stop=lambda loop: loop.step == 1)
    before, scale = weights(loop), loop.state_dict()["scaler"]["scale"]
    assert not loop.run()
    after = weights(loop)
    assert all(torch.equal(after[name], before[name]) for name, _ in loop.model.named_parameters())
    assert loop.state_dict()["scaler"]["scale"] == scale / 2


def validation(
    scores: list[tuple[float, float]], every: int = 1
) -> tuple[Validation, list[tuple[str, int]]]:
    saved: list[tuple[str, int]] = []
    left = iter(scores)

    def validate(model: torch.nn.Module) -> dict[str, float]:
        clean, robust = next(left)
        return {"clean_acc": clean, "robust_acc": robust}

    return Validation(
        validate, every, lambda ending, model, record: saved.append((ending, record.epoch))
    ), saved


def test_the_best_epoch_is_the_most_robust_then_the_most_accurate_then_the_first() -> None:
    callback, saved = validation([(0.5, 0.3), (0.6, 0.3), (0.9, 0.2), (0.6, 0.3), (0.1, 0.4)])
    make_loop(epochs=5, callbacks=(callback,)).run()
    assert saved == [("", 1), ("", 2), ("", 5)]
    assert callback.best == {"": {"epoch": 5, "clean_acc": 0.1, "robust_acc": 0.4}}


def test_the_averaged_model_is_validated_and_chosen_apart_once_there_is_one() -> None:
    recorder = Recorder()
    callback, saved = validation([(0.5, 0.1), (0.5, 0.2), (0.6, 0.3), (0.5, 0.25), (0.6, 0.1)])
    make_loop(epochs=3, callbacks=(callback, recorder), wa=WeightAveraging(start_epoch=1)).run()
    assert saved == [("", 1), ("", 2), ("_wa", 2), ("", 3)]
    assert {ending: best["epoch"] for ending, best in callback.best.items()} == {"": 3, "_wa": 2}
    assert "robust_acc_wa" not in recorder.epochs[0].validation
    assert recorder.epochs[2].validation == {
        "clean_acc": 0.5,
        "robust_acc": 0.25,
        "clean_acc_wa": 0.6,
        "robust_acc_wa": 0.1,
    }


def test_a_resumed_training_still_knows_its_best_epoch() -> None:
    first, _ = validation([(0.5, 0.4)])
    stopped = make_loop(epochs=2, callbacks=(first,), should_stop=lambda loop: loop.epoch == 1)
    assert not stopped.run()
    state = stopped.state_dict()
    second, saved = validation([(0.5, 0.3)])
    resumed = make_loop(epochs=2, callbacks=(second,))
    resumed.load_state_dict(state)
    assert resumed.run()
    assert saved == []  # the second epoch is no better
    assert second.best == {"": {"epoch": 1, "clean_acc": 0.5, "robust_acc": 0.4}}


def test_validation_comes_every_so_often_and_always_after_the_last_epoch() -> None:
    recorder = Recorder()
    callback, _ = validation([(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)], every=2)
    make_loop(epochs=5, callbacks=(callback, recorder)).run()
    assert [bool(r.validation) for r in recorder.epochs] == [False, True, False, True, True]
