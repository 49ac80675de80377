"""A step whose gradient is not finite stops the training before the weights, as one does whose loss
is not finite."""

from dataclasses import dataclass

import pytest
import torch
from loops import Recorder, make_loop, weights
from torch import Tensor, nn

from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.callback import Callback
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import DivergenceError
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.records.metrics import EpochRecord


class RootOfZero(torch.autograd.Function):
    """The identity, whose gradient is NaN or infinite from the wanted pass on."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        return grad * ctx.factor, None


@dataclass(frozen=True)
class Exploding:
    """A loss that is finite, with a gradient that is not from some epoch on (from 0)."""

    factor: float
    from_epoch: int = 1

    def __call__(self, step: StepContext) -> Outcome:
        logits = step.model(step.x)
        wrong = RootOfZero.apply(logits, self.factor if step.epoch >= self.from_epoch else 1.0)
        loss = nn.functional.cross_entropy(wrong, step.y)
        return Outcome({"ce": loss}, step.x, step.x, logits)


class Saved(Callback):
    """What a checkpoint would hold at the end of each epoch, and at a stop."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Tensor]] = []

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        self.saved.append(weights(loop))

    def on_stop(self, loop: TrainLoop) -> None:
        self.saved.append(weights(loop))


def all_finite(state: dict[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}, {"awp": True}])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    factor: float, options: dict[str, object]
) -> None:
    if "awp" in options:
        options = {"awp": WeightPerturbation()}
    saved = Saved()
    loop = make_loop(Exploding(factor), callbacks=(saved,), **options)
    message = r"epoch 2, step 1: the loss is finite, but the gradient.*--lr"
    with pytest.raises(DivergenceError, match=message):
        loop.run()
    assert len(saved.saved) == 1
    assert all_finite(saved.saved[0])
    assert all_finite(weights(loop))


def test_a_gradient_so_large_that_the_next_loss_is_not_finite_ends_the_training() -> None:
    saved = Saved()
    loop = make_loop(Exploding(1e38), callbacks=(saved,))
    with pytest.raises(DivergenceError, match="epoch 2, step 2: ce is nan"):
        loop.run()
    assert all_finite(saved.saved[0])


def test_the_message_names_a_parameter_whose_gradient_is_not_finite() -> None:
    class Rooted(nn.Module):
        """Its standard deviation has no gradient where an image is constant."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.head = nn.Linear(3 * 64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.scale * x * 0
            deviation = x.square().mean((1, 2, 3), keepdim=True).sqrt()
            return self.head((x / (deviation + 1e-3)).flatten(1))

    loop = make_loop(METHODS["standard"](), model=Rooted())
    with pytest.raises(DivergenceError, match="gradient of scale is not finite"):
        loop.run()
    assert all_finite(weights(loop))


def test_weights_that_overflow_in_the_last_step_reach_no_checkpoint() -> None:
    saved = Saved()
    loop = make_loop(Exploding(1e3, from_epoch=0), epochs=1, callbacks=(saved,))
    loop.lr = 3e38  # finite gradients, and a step that no float32 can hold
    loop.batch_size = 24
    with pytest.raises(DivergenceError, match=r"epoch 1"):
        loop.run()
    assert saved.saved == []


def test_a_float16_gradient_that_no_scale_makes_finite_is_an_error() -> None:
    loop = make_loop(Exploding(float("nan")), epochs=30, dtype=torch.float16)
    with pytest.raises(DivergenceError, match="gradient of .* is not finite"):
        loop.run()
    assert all_finite(weights(loop))


def test_it_costs_no_further_transfer_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: calls.append(1) or tolist(self))
    recorder = Recorder()
    loop = make_loop(METHODS["standard"](), epochs=1, callbacks=(recorder,), accumulate=2)
    before = len(calls)
    loop.run()
    assert len(calls) - before <= 2 * len(recorder.steps)
