"""How long AutoAttack takes on a model here: as its library runs it, exact, and fast."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.side_effects import own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.benchmark.race import OnTurn, Spread, Times, busy, race, silent
from rpat_cli.evaluation.evaluate import Evaluation, default_batch_size, evaluate
from rpat_cli.evaluation.suite import parse_suite

LIBRARY, EXACT, FAST = "pyautoattack", "exact", "fast"

LIBRARY_BATCH = 250
"""The library's default."""

SEED = 0
"""Of every contestant: only then can flags be compared image by image."""


@dataclass
class Library:
    """AutoAttack's own loop, on a model as it comes: NCHW, all parameters with gradients; a
    contestant. `correct` (N,) are the images that are right after it."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    batch_size: int
    name: str = LIBRARY
    correct: Tensor | None = None

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model).to(memory_format=torch.contiguous_format)
        self.model.eval().requires_grad_()

    @property
    def device(self) -> torch.device:
        return self.x.device

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with own_randomness(self.device), torch.enable_grad():
                # Without a seed the library takes the time of day.
                attack = import_module(LIBRARY).AutoAttack(
                    self.model,
                    norm=self.threat.norm,
                    eps=self.threat.eps,
                    seed=SEED,
                    device=self.device,
                )
                _, y_adv = attack.run_standard_evaluation(
                    self.x, self.y, batch_size=self.batch_size
                )
        with torch.no_grad():
            right = torch.cat(
                [self.model(part).argmax(1) for part in torch.split(self.x, LIBRARY_BATCH)]
            )
        self.correct = (right == self.y) & (y_adv == self.y)


@dataclass
class Ours:
    """`rpat eval --attack autoattack` in one process; a contestant."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    batch_size: int
    fast: bool
    result: Evaluation | None = None

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def correct(self) -> Tensor | None:
        return None if self.result is None else self.result.results[0].correct_after

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.result = evaluate(
                self.model,
                self.x,
                self.y,
                parse_suite("autoattack"),
                self.threat,
                batch_size=self.batch_size,
                seed=SEED,
                fast=self.fast,
            )


@dataclass(frozen=True)
class EvaluationRow:
    """One contestant: seconds for all images, and the robust accuracy that it found.

    `differing`: images on which it and the library disagree. `speedup`: the library's time in units
    of this one's, by the clock and by the processor.
    """

    name: str
    batch_size: int
    seconds: Spread
    cpu_seconds: Spread
    speedup: Spread
    speedup_cpu: Spread
    robust_acc: float
    differing: int

    def to_dict(self) -> dict[str, Any]:
        return {
            key: value.to_dict() if isinstance(value, Spread) else value
            for key, value in self.__dict__.items()
        }


@dataclass(frozen=True)
class EvaluationTimes:
    """`stages`: of ours, by contestant, what each part of AutoAttack did, as in `rpat eval`."""

    rows: tuple[EvaluationRow, ...]
    images: int
    threat: Threat
    stages: Mapping[str, Sequence[Mapping[str, Any]]]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": [row.to_dict() for row in self.rows],
            "images": self.images,
            "threat": {"norm": self.threat.norm, "eps": self.threat.eps},
            "stages": {name: list(stages) for name, stages in self.stages.items()},
            "remarks": list(self.remarks),
        }


def bench_evaluation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    batch_size: int | None = None,
    seconds: float = 0.0,
    on_turn: OnTurn = silent,
) -> EvaluationTimes:
    """Race AutoAttack on images `x` (N, C, H, W) with classes `y` (N,), on the model's device: one
    round, and more until `seconds` are over. Without `batch_size` each has its own default."""
    theirs = Library(model, x, y, threat, batch_size or LIBRARY_BATCH)
    own = batch_size or default_batch_size(x.device)
    ours = [Ours(name, model, x, y, threat, own, name == FAST) for name in (EXACT, FAST)]
    contestants: list[Library | Ours] = [theirs, *ours]
    # Nothing that runs for minutes needs to be warmed up.
    times = race(
        contestants, seconds=seconds, least=1, most_steps=1, warm_up=False, on_turn=on_turn
    )
    remark = busy(times[EXACT], torch.get_num_threads()) if x.device.type == "cpu" else ""
    return EvaluationTimes(
        rows=tuple(_row(each, times, theirs.correct) for each in contestants),
        images=len(x),
        threat=threat,
        stages={
            each.name: [stage.to_dict() for stage in each.result.results[0].stages]
            for each in ours
            if each.result is not None
        },
        remarks=(remark,) if remark else (),
    )


def _row(
    each: Library | Ours, times: Mapping[str, Times], reference: Tensor | None
) -> EvaluationRow:
    own, theirs = times[each.name], times[LIBRARY]
    assert each.correct is not None
    assert reference is not None
    return EvaluationRow(
        name=each.name,
        batch_size=each.batch_size,
        seconds=Spread.of(own.seconds),
        cpu_seconds=Spread.of(own.cpu_seconds),
        speedup=theirs.over(own),
        speedup_cpu=theirs.cpu_over(own),
        robust_acc=float(each.correct.float().mean()),
        differing=int((each.correct.cpu() != reference.cpu()).sum()),
    )
