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
from rpat_cli.engine.averaging import AveragedModel, WeightAveraging
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.memory import Memory
from rpat_cli.engine.networks import Networks
from rpat_cli.engine.schedules import Cosine
from rpat_cli.methods import METHODS
from rpat_cli.methods.declare import Averaged, TrainedAlong
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


def attack_of(method: Any, threat: Threat) -> PGD:
    """PGD as the method's paper has it, with two steps where that says nothing of them."""
    settings = dict(getattr(method, "attack_defaults", {}))
    step_size = settings.pop("step_per_eps", None)
    settings = {"steps": 2, **settings}
    return PGD(
        threat, step_size * threat.eps if step_size else threat.default_step_size(), **settings
    )


def networks_of(method: Any, model: nn.Module) -> Networks:
    """Small ones in the place of those that the method asks for."""
    frozen, averaged, trained = {}, {}, {}
    for name, network in getattr(method, "networks", {}).items():
        if isinstance(network, Averaged):
            averaged[name] = AveragedModel(model, network.decay, network.start_epoch)
        elif isinstance(network, TrainedAlong):
            trained[name] = tiny_net()
        else:
            frozen[name] = tiny_net().eval().requires_grad_(False)
    return Networks(frozen, averaged, trained)


def memory_of(method: Any, count: int) -> Memory:
    state = method.initial_state(10) if hasattr(method, "initial_state") else {}
    return Memory(state, getattr(method, "remembers", ()), count, (3, 8, 8))


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
    networks = networks_of(method, model)
    parameters = [*model.parameters(), *networks.parameters()]
    train = images()
    return TrainLoop(
        model=model,
        method=method,
        attack=attack_of(method, threat),
        optimizer=torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        schedule=Cosine(),
        train=train,
        networks=networks,
        memory=memory_of(method, len(train)),
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
