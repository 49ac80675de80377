"""The one training loop. It knows no method, model or data set by name; everything it uses is
handed to it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack
from rpat_cli.data.base import Split
from rpat_cli.engine.averaging import AveragedModel
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.compute import Compute, rng_state, set_rng_state
from rpat_cli.engine.schedules import Schedule, learning_rate
from rpat_cli.engine.stages import FromEpoch, in_force
from rpat_cli.errors import DivergenceError
from rpat_cli.methods.base import Method, Outcome, StepContext
from rpat_cli.passes import count_passes
from rpat_cli.records.metrics import AVERAGED, EpochRecord

Augment = Callable[[Tensor], Tensor]
Relabel = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From x (views · B, C, H, W), y (B,) and the number of views to such images and labels (B,
classes)."""


class Order(Protocol):
    """Which images an epoch visits, and in which order."""

    def __len__(self) -> int:
        """How many images an epoch has."""
        ...

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Their indices, (n,) int64; only `generator` decides."""
        ...


@dataclass(frozen=True)
class EachOnce:
    """Each of `count` images once, shuffled."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __call__(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)


@dataclass(frozen=True)
class StepRecord:
    """What one step tells: loss terms by name, images per second, learning rate. Epochs and steps
    count from 1."""

    epoch: int
    step: int
    steps: int
    terms: dict[str, float]
    lr: float
    images_per_second: float


class Callback:
    """Does something at fixed points of the training; every hook does nothing unless overridden."""

    def on_start(self, loop: "TrainLoop") -> None: ...

    def on_step(self, loop: "TrainLoop", record: StepRecord) -> None: ...

    def on_epoch_end(self, loop: "TrainLoop", record: EpochRecord) -> None: ...

    def on_stop(self, loop: "TrainLoop") -> None:
        """The training ends before its last epoch, after a whole step."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback must remember over an interruption, as tensors and builtins."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainLoop:
    """Trains `model` with `method` from where it stands to the last epoch, or until `should_stop`
    says so.

    `epoch` and `step` are the epochs, and the steps of the epoch under way, that are done: with
    `state_dict` they make an interrupted training go on exactly where it was.

    Optional collaborators, each of which goes with every method: `averaging` follows the weights
    and is the method's teacher; `awp` takes the loss at perturbed weights; `relabel` mixes images
    and labels; `order` visits images in other ways than each once; `late_attack` and `late_augment`
    take over in the middle. A batch is computed in `accumulate` parts, whose gradients add up;
    `clip_norm` is the largest gradient that reaches the weights.
    """

    model: nn.Module
    method: Method
    attack: Attack
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Split
    augment: Augment
    compute: Compute
    lr: float
    epochs: int
    batch_size: int
    views: int = 1
    warmup_epochs: float = 0.0
    seed: int = 0
    averaging: AveragedModel | None = None
    awp: WeightPerturbation | None = None
    relabel: Relabel | None = None
    order: Order | None = None
    late_attack: FromEpoch[Attack] | None = None
    late_augment: FromEpoch[Augment] | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    callbacks: Sequence[Callback] = ()
    should_stop: Callable[["TrainLoop"], bool] = lambda loop: False  # noqa: ARG005

    def __post_init__(self) -> None:
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self._sums: dict[str, float] = {}
        self._images = 0
        self._passes = (0, 0)
        self._scaler = self.compute.scaler()
        self._order = self.order or EachOnce(len(self.train))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._order) // self.batch_size)

    @property
    def models(self) -> dict[str, nn.Module]:
        """What there is to measure after a whole epoch: the model itself as "", and once it
        differs, its average.

        The names are endings: of checkpoints ("best", "best_wa") and figures.
        """
        averaged = self.averaging.teacher(self.epoch - 1) if self.averaging else None
        return {"": self.model} | ({} if averaged is None else {AVERAGED: averaged})

    def run(self) -> bool:
        """Train; `True` when the last epoch is done, `False` when stopped before.

        Raises `DivergenceError` when a loss term is not finite.
        """
        for callback in self.callbacks:
            callback.on_start(self)
        while self.epoch < self.epochs:
            if not self._run_epoch() or (self.epoch < self.epochs and self.should_stop(self)):
                for callback in self.callbacks:
                    callback.on_stop(self)
                return False
        return True

    def _run_epoch(self) -> bool:
        self.model.train()
        began = time.perf_counter()
        for x, y in self._batches():
            values = self._train_step(x, y)
            record = self._count(values, len(y), time.perf_counter() - began)
            for callback in self.callbacks:
                callback.on_step(self, record)
            if self.step < self.steps_per_epoch and self.should_stop(self):
                return False
            began = time.perf_counter()
        record_of_epoch = self._close_epoch()
        for callback in self.callbacks:
            callback.on_epoch_end(self, record_of_epoch)
        return True

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of this epoch that are still to come.

        The order depends on the seed and the epoch alone, so it needs no saving. The last images
        that fill no batch are left out (another order, so others, each epoch), unless they are all
        there are.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        wanted = self._order(generator)[
            self.step * self.batch_size : self.steps_per_epoch * self.batch_size
        ]
        return self.train.batches(wanted, self.batch_size, self.compute.device)

    def _count(self, values: dict[str, float], images: int, seconds: float) -> StepRecord:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * images
        self._images += images
        self.seconds += seconds
        self.step += 1
        lr = self.optimizer.param_groups[0]["lr"]
        return StepRecord(
            self.epoch + 1, self.step, self.steps_per_epoch, values, lr, images / seconds
        )

    def _set_lr(self) -> float:
        # The middle of the step: no schedule is then asked for its very ends, where the rate may be
        # 0.
        point = self.epoch + (self.step + 0.5) / self.steps_per_epoch
        lr = learning_rate(self.lr, self.schedule, point, self.epochs, self.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _train_step(self, x: Tensor, y: Tensor) -> dict[str, float]:
        lr = self._set_lr()
        self.optimizer.zero_grad(set_to_none=True)
        with count_passes(self.model) as passes:
            parts = [
                self._backward(*part, share=len(part[1]) / len(y), lr=lr)
                for part in zip(x.chunk(self.accumulate), y.chunk(self.accumulate), strict=True)
            ]
        self._update_weights()
        self._passes = (self._passes[0] + passes.forward, self._passes[1] + passes.backward)
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def _backward(self, x: Tensor, y: Tensor, share: float, lr: float) -> dict[str, float]:
        """Add the gradient of a part of the batch, `share` of the whole, and return its share of
        the step's numbers."""
        step = self._step_context(x, y, lr)
        with self._weights_for(step) as step:
            outcome = self._outcome(step)
            loss = _loss(outcome)
            values = self._checked_values(outcome, loss, step.y)
            self._scaler.scale(share * loss).backward()  # type: ignore[no-untyped-call]
        return {name: share * value for name, value in values.items()}

    def _step_context(self, x: Tensor, y: Tensor, lr: float) -> StepContext:
        augment = in_force(self.augment, self.late_augment, self.epoch)
        x = torch.cat([augment(x) for _ in range(self.views)])
        if self.relabel is not None:
            x, y = self.relabel(x, y, self.views)
        return StepContext(
            self.model,
            in_force(self.attack, self.late_attack, self.epoch),
            x,
            torch.cat([y] * self.views),
            epoch=self.epoch,
            teacher=self.averaging.teacher(self.epoch) if self.averaging else None,
            lr_ratio=self.lr / lr,
        )

    def _weights_for(self, step: StepContext) -> AbstractContextManager[StepContext]:
        """Where the loss of this step is taken: at the weights as they are, or as `awp` perturbs
        them."""
        if self.awp is None:
            return nullcontext(step)
        return self.awp.worst_weights(step, lambda step: _loss(self._outcome(step)))

    def _outcome(self, step: StepContext) -> Outcome:
        with self.compute.autocast():
            return self.method(step)

    def _update_weights(self) -> None:
        if self.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.averaging is not None:
            self.averaging.update(self.model, self.epoch)

    def _checked_values(self, outcome: Outcome, loss: Tensor, y: Tensor) -> dict[str, float]:
        """The step's numbers in one transfer from the device; a loss that is not finite never
        reaches the weights."""
        named = {"loss": loss, **outcome.terms, "robust_acc": _accuracy(outcome.logits_adv, y)}
        if outcome.logits is not None:
            named["clean_acc"] = _accuracy(outcome.logits, y)
        values = dict(
            zip(
                named,
                torch.stack([value.detach().float() for value in named.values()]).tolist(),
                strict=True,
            )
        )
        broken = [name for name in outcome.terms if not math.isfinite(values[name])]
        if broken:
            raise DivergenceError(
                f"the training diverged in epoch {self.epoch + 1}, step {self.step + 1}: "
                f"{', '.join(f'{name} is {values[name]}' for name in broken)}. The weights of "
                "the last checkpoint are "
                "kept. Try a smaller learning rate (--lr), a warm-up (--warmup-epochs) or "
                "--precision fp32."
            )
        return values

    def _close_epoch(self) -> EpochRecord:
        means = {name: total / self._images for name, total in self._sums.items()}
        record = EpochRecord(
            epoch=self.epoch + 1,
            lr=self.optimizer.param_groups[0]["lr"],
            train=means,
            seconds=self.seconds,
            images_per_second=self._images / self.seconds,
            forward=self._passes[0],
            backward=self._passes[1],
        )
        self.epoch, self.step = self.epoch + 1, 0
        self.seconds, self._sums, self._images, self._passes = 0.0, {}, 0, (0, 0)
        return record

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on exactly needs, as tensors and builtins."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "averaging": self.averaging.state_dict() if self.averaging else {},
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "sums": dict(self._sums),
            "images": self._images,
            "passes": list(self._passes),
            "rng": rng_state(self.compute.device),
            "callbacks": {
                type(callback).__name__: callback.state_dict() for callback in self.callbacks
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.averaging is not None:
            self.averaging.load_state_dict(state["averaging"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self._sums, self._images = dict(state["sums"]), state["images"]
        self._passes = (state["passes"][0], state["passes"][1])
        for callback in self.callbacks:
            callback.load_state_dict(state["callbacks"].get(type(callback).__name__, {}))
        set_rng_state(state["rng"], self.compute.device)


def _loss(outcome: Outcome) -> Tensor:
    return torch.stack([term.float() for term in outcome.terms.values()]).sum()


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """With labels (B, classes), the most probable one is what should be found."""
    y = y if y.ndim == 1 else y.argmax(dim=1)
    return (logits.detach().argmax(1) == y).float().mean()
