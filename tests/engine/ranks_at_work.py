"""Several processes in trainings of the tiny loop: run by test_ranks.py as each of the ranks.

`python ranks_at_work.py FOLDER` joins the others as RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
say, trains, and leaves what came out in FOLDER/RANK.pt.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from loops import Recorder, images, make_loop, weights
from test_collaborators import method_with
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.mixing import CutMix, SoftLabels
from rpat_cli.data.order import SharedOrder
from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.engine.awp import WeightPerturbation
from rpat_cli.engine.distributed import Ranks
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.sam import SharpnessAware
from rpat_cli.errors import DivergenceError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel import group
from rpat_cli.evaluation.parallel.ranks import Together
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.records.checkpoint import checksum

THREAT = Threat("Linf", 8 / 255)
TOGETHER: dict[str, dict[str, Any]] = {
    "plain": {},
    "wa": {"wa": WeightAveraging(decay=0.9, start_epoch=0)},
    "awp": {"awp": WeightPerturbation(gamma=0.01)},
    "cutmix": {"relabel": SoftLabels(10, 0.1, CutMix())},
    "parts": {"accumulate": 2, "clip_norm": 0.5, "awp": WeightPerturbation(gamma=0.01)},
}


def net_without_batchnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def comparable(ranks: Ranks, accumulate: int = 1, norm: bool = False, **settings: Any) -> TrainLoop:
    """A training without anything random but the order, of a smooth network."""
    torch.manual_seed(0)
    loop = make_loop(
        model=None if norm else net_without_batchnorm(),
        ranks=ranks,
        accumulate=accumulate,
        callbacks=(Recorder(),),
        **settings,
    )
    # L2: the sign of Linf turns differences of rounding into whole steps.
    loop.attack = PGD(Threat("L2", 0.5), 0.2, 3, start="zero")
    loop.augment = lambda x: x
    return loop


def losses(loop: TrainLoop) -> list[float]:
    (recorder,) = loop.callbacks
    assert isinstance(recorder, Recorder)
    return [step.terms["loss"] for step in recorder.steps]


def state_of(loop: TrainLoop) -> str:
    """A checksum of all that the ranks must agree on."""
    state = loop.state_dict()
    without = ("rng", "callbacks", "seconds")
    agreed = {key: value for key, value in state.items() if key not in without}
    for part in (agreed["model"], agreed["averaging"], *agreed["networks"].values()):
        for name in [name for name in part if name.endswith("num_batches_tracked")]:
            del part[name]  # each rank counts its own: a method may leave out a pass
    return checksum(agreed)


def one_step_of_everything(ranks: Ranks) -> dict[str, str]:
    """After one step of every method, with the weights averaged and perturbed; of two methods also
    with mixed labels and in parts."""
    states = {}
    for name in METHODS:
        for key, settings in TOGETHER.items():
            given = dict(settings)
            if key in ("cutmix", "parts") and name not in ("pgd", "consistency"):
                continue
            if "awp" in given and METHODS[name].own_examples:  # the recipe refuses it
                continue
            if METHODS[name]().needs_teacher:
                given.setdefault("wa", TOGETHER["wa"]["wa"])
            loop = make_loop(
                method_with(name, ra=True), ranks=ranks, should_stop=lambda _: True, **given
            )
            assert not loop.run()
            states[f"{name} {key}"] = state_of(loop)
    return states


def two_epochs_with_extra(ranks: Ranks) -> str:
    order = SharedOrder(16, 8, 8, 0.25)
    loop = make_loop(ranks=ranks, order=order, wa=WeightAveraging(decay=0.9, start_epoch=1))
    assert loop.run()
    return state_of(loop)


class NotFiniteOnLastRank:
    """A method whose loss is not finite in the second step, on the last rank only."""

    views = 1

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.steps = ranks, 0

    def __call__(self, step: StepContext) -> Outcome:
        self.steps += 1
        logits = step.model(step.x)
        wrong = self.steps == 2 and self.ranks.rank == self.ranks.size - 1
        loss = logits.square().mean() * (torch.nan if wrong else 1.0)
        return Outcome({"odd": loss}, step.x, step.x, logits)


def divergence(ranks: Ranks) -> tuple[str, bool]:
    """The message, and whether the weights were spared."""
    loop = make_loop(NotFiniteOnLastRank(ranks), ranks=ranks)
    try:
        loop.run()
    except DivergenceError as error:
        return str(error), all(bool(value.isfinite().all()) for value in weights(loop).values())
    return "", False


def gradients_of_some(ranks: Ranks) -> list[list[float] | None]:
    """Of parameters that all ranks, the last one, and none have a gradient of."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(3)])
    model[0].grad = torch.tensor([1.0])
    if ranks.rank == ranks.size - 1:
        model[1].grad = torch.tensor([1.0])
    ranks.combine(model, 0.5)
    return [None if p.grad is None else p.grad.tolist() for p in model]


def scaled_step(ranks: Ranks) -> tuple[float, bool]:
    """The scale after a step whose float16 gradient overflows on one rank, and whether the weights
    were spared."""
    loop = make_loop(ranks=ranks)
    loop._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(loop)
    loop.optimizer.zero_grad()
    for parameter in loop.model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf if ranks.rank == 0 else 1.0)
    ranks.combine(loop.model, 0.5)
    loop._scaler.scale(torch.zeros(()))  # makes the scale, as a backward pass does
    loop._update_weights()
    spared = all(torch.equal(before[name], value) for name, value in weights(loop).items())
    return loop._scaler.get_scale(), spared


def flags(ranks: Ranks) -> list[Any]:
    """What a shared evaluation finds, in chunks of 5 images."""
    loop, (x, y) = make_loop(), images().tensors()
    pool = Together() if ranks.size > 1 else None
    result = evaluate(
        loop.model, x, y, parse_suite("clean,pgd-3,pgd-2x2"), THREAT, batch_size=5, workers=pool
    )
    return [
        [attack.accuracy.value, attack.predicted.tolist(), attack.margin.tolist()]
        for attack in result.results
    ]


def trained(ranks: Ranks, **settings: Any) -> tuple[list[float], dict[str, Tensor]]:
    loop = comparable(ranks, **settings)
    assert loop.run()
    return losses(loop), weights(loop)


def stopped_after_two_steps(ranks: Ranks) -> dict[str, Any]:
    """The state of a training stopped within its first epoch."""
    loop = comparable(ranks, should_stop=lambda loop: loop.step == 2)
    assert not loop.run()
    state = loop.state_dict()
    return {**state, "callbacks": {}}


def resumed(ranks: Ranks, state: dict[str, Any]) -> dict[str, Tensor]:
    loop = comparable(ranks)
    loop.load_state_dict(state)
    assert loop.run()
    return weights(loop)


COMPARED: dict[str, dict[str, Any]] = {
    "plain": {},
    "awp": {"awp": WeightPerturbation(gamma=0.02)},
    "sam": {"awp": SharpnessAware(rho=0.1)},
    "parts": {"accumulate": 2, "awp": WeightPerturbation(gamma=0.02), "clip_norm": 0.1},
    "wa": {"wa": WeightAveraging(decay=0.9, start_epoch=0)},
    "norm": {"norm": True},
}


def everything(ranks: Ranks, before: Path) -> Iterator[tuple[str, Any]]:
    for key, settings in COMPARED.items():
        yield key, trained(ranks, **settings)
    yield "again", trained(ranks, norm=True)
    yield "stopped", stopped_after_two_steps(ranks)
    if before.exists():
        yield "resumed", resumed(ranks, torch.load(before, weights_only=False)["stopped"])
    yield "one step", one_step_of_everything(ranks)
    yield "extra", two_epochs_with_extra(ranks)
    yield "divergence", divergence(ranks)
    yield "gradients", gradients_of_some(ranks)
    yield "scaled", scaled_step(ranks)
    yield "flags", flags(ranks)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    group.join()
    ranks = Ranks.joined().on(torch.device("cpu"))
    torch.save(dict(everything(ranks, folder / "before.pt")), folder / f"{ranks.rank}.pt")
    assert ranks.highest(ranks.rank) == ranks.size - 1  # all are done
    group.leave()


if __name__ == "__main__":
    main()
