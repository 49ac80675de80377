"""The one training loop. It knows no method, model or data set by name; everything that it uses is
passed to it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack
from rpat_cli.data.base import Batches, in_epoch
from rpat_cli.data.order import EachOnce, Order
from rpat_cli.engine.averaging import AveragedModel
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.compute import Compute, rng_state, set_rng_state
from rpat_cli.engine.distributed import ALONE, Ranks, parts_of
from rpat_cli.engine.finite import check_gradient, check_loss, check_weights, largest_gradient
from rpat_cli.engine.measured import Metrics, metrics_of
from rpat_cli.engine.memory import Memory
from rpat_cli.engine.networks import Networks
from rpat_cli.engine.optimizers import rate_of, set_rates
from rpat_cli.engine.schedules import Schedule, learning_rate, momentum_at
from rpat_cli.engine.stages import EpsWarmup, FromEpoch, in_force
from rpat_cli.engine.tally import EpochTally
from rpat_cli.engine.worse_weights import WorseWeights
from rpat_cli.methods.base import Method, Outcome, StepContext
from rpat_cli.passes import Passes, count_passes
from rpat_cli.records.metrics import AVERAGED, EpochRecord

Augment = Callable[[Tensor], Tensor]
"""From images (B, C, H, W) in [0, 1] to augmented ones of the same shape and range."""

Relabel = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From x (views · B, C, H, W), y (B,) and the number of views to such images and label
probabilities (B, classes)."""


@dataclass
class TrainLoop:
    """Trains `model` with `method` to the last epoch, or until `should_stop` returns true.

    `epoch` is the number of epochs done, `step` that of the steps done in the current one. Both are
    in `state_dict`, with which an interrupted training goes on bit for bit as if it had not been
    interrupted.

    `lr` is the peak learning rate, which `schedule` scales; `momentum`, the lowest and the highest,
    makes it fall as the rate rises. A batch of `batch_size` images is
    computed in `accumulate` parts, whose gradients add up; `clip_norm` is the max gradient norm.
    The optional collaborators go with every method: `averaging` keeps an average of the weights,
    which is the method's teacher; `awp` (AWP or SAM) takes the loss at worse weights; `relabel`
    mixes images and labels; `order` visits images otherwise than each once; `late_attack` and
    `late_augment` replace attack and augmentation from some epoch on; `eps_warmup` lets the attack
    grow.
    `networks` and `memory` are what the method has asked for.

    `ranks` are the processes that share the training: each has a loop of its own, with the same
    state at the end of every step. All that is said of batches is said of whole ones.
    """

    model: nn.Module
    method: Method
    attack: Attack
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Batches
    augment: Augment
    compute: Compute
    lr: float
    epochs: int
    batch_size: int
    views: int = 1
    warmup_epochs: float = 0.0
    momentum: tuple[float, float] | None = None
    seed: int = 0
    averaging: AveragedModel | None = None
    awp: WorseWeights | None = None
    relabel: Relabel | None = None
    order: Order | None = None
    late_attack: FromEpoch[Attack] | None = None
    late_augment: FromEpoch[Augment] | None = None
    eps_warmup: EpsWarmup | None = None
    networks: Networks = field(default_factory=Networks)
    memory: Memory = field(default_factory=Memory)
    accumulate: int = 1
    clip_norm: float | None = None
    ranks: Ranks = ALONE
    callbacks: Sequence[Callback] = ()
    should_stop: Callable[["TrainLoop"], bool] = lambda loop: False  # noqa: ARG005

    def __post_init__(self) -> None:
        self.epoch = 0
        self.step = 0
        self.ended = False
        self._tally = EpochTally()
        self._scaler = self.compute.scaler()
        self._order = self.order or EachOnce(len(self.train))
        self._images = min(self.batch_size, len(self._order))
        self._parts = parts_of(self._images, self.accumulate, self.ranks)
        along = self.networks.trained.values()
        # All that takes gradients.
        self._trained = nn.ModuleList([self.model, *along]) if along else self.model

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._order) // self.batch_size)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train: a callback may have `ended` it early."""
        return self.ended or self.epoch >= self.epochs

    @property
    def models(self) -> dict[str, nn.Module]:
        """The models to validate after an epoch, by suffix of their metrics and checkpoints: the
        trained model as "", and its average as "_wa" once averaging has started."""
        models = {"": self.model}
        averaged = self.averaging.teacher(self.epoch - 1) if self.averaging else None
        if averaged is not None:
            models[AVERAGED] = averaged
        return models

    def run(self) -> bool:
        """Train. `True` when the last epoch is done, `False` when stopped before.

        Raises `DivergenceError` for a loss term, a gradient or a weight that is not finite.
        """
        for callback in self.callbacks:
            callback.on_start(self)
        while not self.is_done:
            with self.compute.settings():
                whole = self._run_epoch()
            # After the last epoch there is nothing left to stop.
            if not whole or (not self.is_done and self.should_stop(self)):
                check_weights(self._trained, self._place)
                for callback in self.callbacks:
                    callback.on_stop(self)
                return False
        return True

    def _run_epoch(self) -> bool:
        """Run the rest of the current epoch; `False` if it was stopped within it."""
        self._trained.train()
        began = time.perf_counter()
        for x, y, index in self._batches():
            values, passes = self._train_step(x, y, index)
            record = self._count(values, time.perf_counter() - began, passes)
            for callback in self.callbacks:
                callback.on_step(self, record)
            if self.step < self.steps_per_epoch and self.should_stop(self):
                return False
            began = time.perf_counter()  # so that reading the next batch counts, callbacks do not
        check_weights(self._trained, self._place)
        epoch_record = self._close_epoch()
        if all(callback.accepts(self, epoch_record) for callback in self.callbacks):
            for callback in self.callbacks:
                callback.on_epoch_end(self, epoch_record)
        return True

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The remaining batches of the current epoch, this rank's slice of each: images, labels,
        and their indices in the training set.

        Images that do not fill a last batch are left out (other ones each epoch), unless they are
        all there are.
        """
        # The order follows from seed and epoch alone, so checkpoints need not hold it.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        first, end = self.step * self.batch_size, self.steps_per_epoch * self.batch_size
        remaining = self._order(generator)[first:end].view(-1, self._images)
        whole = torch.split(torch.arange(self._images), self._parts)
        mine = torch.cat([part[self.ranks.slice_of(len(part))] for part in whole])
        index = remaining[:, mine]
        images = in_epoch(self.train, self.seed, self.epoch)
        batches = images.batches(index.flatten(), len(mine), self.compute.device)
        for (x, y), at in zip(batches, index, strict=True):
            yield x, y, at

    def _count(self, values: dict[str, float], seconds: float, passes: Passes) -> StepRecord:
        self._tally.add(values, self._images, seconds, passes)
        self.step += 1
        lr = rate_of(self.optimizer)
        speed = self._images / seconds
        return StepRecord(self.epoch + 1, self.step, self.steps_per_epoch, values, lr, speed)

    def _close_epoch(self) -> EpochRecord:
        record = self._tally.record(self.epoch + 1, rate_of(self.optimizer))
        record.ranks = self.ranks.size
        self._tally = EpochTally()
        self.epoch, self.step = self.epoch + 1, 0
        return record

    def _set_lr(self) -> float:
        # The middle of the step: at its very beginning and end a schedule may have a rate of 0.
        point = self.epoch + (self.step + 0.5) / self.steps_per_epoch
        lr = learning_rate(self.lr, self.schedule, point, self.epochs, self.warmup_epochs)
        momentum = self.momentum and momentum_at(self.momentum, self.schedule, point, self.epochs)
        set_rates(self.optimizer, lr, momentum)
        return lr

    def _train_step(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[dict[str, float], Passes]:
        """One update of the weights; the means of its metrics over the batch, and its passes."""
        lr = self._set_lr()
        self.ranks.seed(self.seed, self.epoch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        measured: list[tuple[float, Metrics]] = []
        slices = [len(self.ranks.slice_of(part)) for part in self._parts]
        with count_passes(self.model) as passes:
            parts = zip(*(torch.split(each, slices) for each in (x, y, index)), strict=True)
            for (part_x, part_y, at), whole in zip(parts, self._parts, strict=True):
                share = len(at) / self._images
                measured.append((share, self._backward(part_x, part_y, at, share, whole, lr)))
        weight = len(y) / self._images
        counts = self.ranks.combine(self._trained, weight, passes.forward, passes.backward)
        passes.forward, passes.backward = counts
        values = self._checked_values(measured)
        self._update_weights()
        return values, passes

    def _backward(
        self, x: Tensor, y: Tensor, index: Tensor, share: float, whole: int, lr: float
    ) -> Metrics:
        """Add the gradient of this rank's slice of a part of `whole` images; the slice is `share`
        of the batch. Returns its metrics."""
        step = self._step_context(x, y, index, lr)
        with self._weights_for(step, len(y) / whole) as step:
            outcome = self._outcome(step)
            loss = outcome.loss
            self._scaler.scale(share * loss).backward()  # type: ignore[no-untyped-call]
        self.memory.remember(index, outcome, self.ranks, len(y) / whole)
        return metrics_of(outcome, loss, step.y)

    def _step_context(self, x: Tensor, y: Tensor, index: Tensor, lr: float) -> StepContext:
        augment = in_force(self.augment, self.late_augment, self.epoch)
        x = torch.cat([augment(x) for _ in range(self.views)])
        if self.relabel is not None:
            x, y = self.relabel(x, y, self.views)
        done = self.epoch + self.step / self.steps_per_epoch
        attack = in_force(self.attack, self.late_attack, self.epoch)
        return StepContext(
            self.model,
            attack if self.eps_warmup is None else self.eps_warmup.at(attack, done),
            x,
            torch.cat([y] * self.views),
            epoch=self.epoch,
            teacher=self.averaging.teacher(self.epoch) if self.averaging else None,
            lr_ratio=self.lr / lr,
            epochs=self.epochs,
            step=self.step,
            progress=done / self.epochs,
            networks=self.networks.by_name(),
            state=self.memory.state,
            memory=self.memory.rows(index),
        )

    def _weights_for(self, step: StepContext, weight: float) -> AbstractContextManager[StepContext]:
        """The weights at which the loss of this step is taken: as they are, or perturbed by
        `awp` along the gradient of all ranks, to which this one adds `weight`."""
        if self.awp is None:
            return nullcontext(step)
        return self.awp.worst_weights(
            step,
            lambda step: self._outcome(step).loss,
            lambda gradients: self.ranks.mean(gradients, weight),
        )

    def _outcome(self, step: StepContext) -> Outcome:
        with self.compute.autocast():
            return self.method(step)

    def _update_weights(self) -> None:
        if self.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._trained.parameters(), self.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.averaging is not None:
            self.averaging.update(self.model, self.epoch)
        self.networks.update(self.model, self.epoch)

    def _checked_values(self, measured: Sequence[tuple[float, Metrics]]) -> dict[str, float]:
        """The metrics of a step by name, from those of its parts and their shares of the batch.

        Raises `DivergenceError` before a loss or a gradient that is not finite reaches the weights.
        """
        tensors = [value for _, metrics in measured for value in metrics.values()]
        # One transfer for all: each would wait for the device.
        *numbers, largest = torch.stack([*tensors, largest_gradient(self._trained)]).tolist()
        following = iter(numbers)
        values: dict[str, float] = {}
        for share, metrics in measured:
            for name in metrics:
                values[name] = values.get(name, 0.0) + share * next(following)
        values = self.ranks.sums(values)
        check_loss(values, self._place)
        # A float16 gradient may overflow by its scale alone: then the scaler leaves out the step.
        if not self._scaler.is_enabled() or self._scaler.get_scale() <= 1:
            check_gradient(self._trained, largest, self._place)
        return values

    @property
    def _place(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step + 1}"

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming bit for bit needs, as tensors and builtins."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "averaging": self.averaging.state_dict() if self.averaging else {},
            "networks": self.networks.state_dict(),
            "memory": self.memory.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            **self._tally.state_dict(),
            "rng": rng_state(self.compute.device),
            "callbacks": {
                type(callback).__name__: callback.state_dict() for callback in self.callbacks
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.averaging is not None:
            self.averaging.load_state_dict(state["averaging"])
        # Earlier versions had neither.
        self.networks.load_state_dict(state.get("networks", {}))
        self.memory.load_state_dict(state.get("memory", {"state": {}, "images": {}}))
        self.epoch, self.step = state["epoch"], state["step"]
        self._tally = EpochTally.from_state_dict(state)
        for callback in self.callbacks:
            callback.load_state_dict(state["callbacks"].get(type(callback).__name__, {}))
        set_rng_state(state["rng"], self.compute.device)
