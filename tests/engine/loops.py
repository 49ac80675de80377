"""A training loop on tiny random images, and what it did."""

from collections.abc import Callable
from typing import Any

import torch
from helpers import tiny_net
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.augment import build_augment
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.schedules import Cosine
from rpat_cli.methods import METHODS
from rpat_cli.records.metrics import EpochRecord


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.epochs: list[EpochRecord] = []

    def on_step(self, loop: TrainLoop, record: StepRecord) -> None:
        self.steps.append(record)

    def on_epoch_end(self, loop: TrainLoop, record: EpochRecord) -> None:
        self.epochs.append(record)


def images(n: int = 24) -> TensorSplit:
    generator = torch.Generator().manual_seed(1)
    return TensorSplit(
        torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (n,), generator=generator),
    )


def make_loop(
    method: Any = None,
    *,
    epochs: int = 2,
    threat: Threat | None = None,
    callbacks: tuple[Callback, ...] = (),
    should_stop: Callable[[TrainLoop], bool] = lambda loop: False,
    dtype: torch.dtype | None = None,
    model: nn.Module | None = None,
    wa: WeightAveraging | None = None,
    **collaborators: Any,
) -> TrainLoop:
    seed_everything(0)
    method = method or METHODS["pgd"]()
    threat = threat or Threat("Linf", 8 / 255)
    model = model or tiny_net()
    steps = getattr(getattr(method, "method", method), "attack_defaults", {}).get("steps", 2)
    return TrainLoop(
        model=model,
        method=method,
        attack=PGD(threat, threat.default_step_size(), steps),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        schedule=Cosine(),
        train=images(),
        augment=build_augment(["crop-flip"], 8),
        compute=Compute(torch.device("cpu"), dtype),
        lr=0.1,
        epochs=epochs,
        batch_size=8,
        views=getattr(method, "views", 1),
        callbacks=callbacks,
        should_stop=should_stop,
        averaging=wa.of(model, epochs) if wa else None,
        **collaborators,
    )


def weights(loop: TrainLoop) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def terms_of(record: StepRecord) -> dict[str, float]:
    """The loss terms of a step by name."""
    return {
        name: value
        for name, value in record.terms.items()
        if name != "loss" and not name.endswith("_acc")
    }
